"""The settings of the noise methods as options: what the manual says of each.

They are written out, and not made of the methods' dataclasses, for two reasons: that would import torch, for which neither
``--help`` nor a shell's TAB should wait; and a docstring speaks to programmers. A test holds names and defaults to the dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from monai_salm.cli import names
from monai_salm.cli.manual import NOISE, OTHERS, SALM, STEPS

_EM, _REM = ("em", "interslice_em", "roi_em"), ("rem", "sem")
#: Methods whose noise comes from surrogates.
SURROGATES = ("salm", "em", "rem", "sem", "tap", "interslice_em", "roi_em")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of one or more methods.

    Args:
        name: of the field in the dataclass.
        metavar: what is to be given.
        help: what it does, for users.
        default: what is taken if it is not given, as shown: a value, or words where that depends on the data or other settings.
        others: the same for methods that take something else.
        methods: that have it.
        panel: section of the manual.
        values: the names it takes, for completion.
        several: whether several of them may be given, with commas.
    """

    name: str
    metavar: str
    help: str
    default: str
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    methods: tuple[str, ...] = SURROGATES
    panel: str = STEPS
    values: tuple[str, ...] = ()
    several: bool = False

    @property
    def flag(self) -> str:
        """How the option is written."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def text(self) -> str:
        """The help text: whose setting it is where the section does not say so, what it does, and all defaults."""
        owners = f"{', '.join(self.methods)}: " if self.panel == OTHERS else ""
        taken = dict.fromkeys(self.default_of(method) for method in self.methods)
        groups = {shown: ", ".join(m for m in self.methods if self.default_of(m) == shown) for shown in taken}
        several = "; ".join(f"of {methods}: {shown}" for shown, methods in groups.items())
        return f"{owners}{self.help}  [default{f' {several}' if self.others else f': {self.default}'}]"

    def default_of(self, method: str) -> str:
        """What is shown as the default of a method."""
        return next((shown for shown, methods in self.others.items() if method in methods), self.default)


SETTINGS = (
    Setting(
        name="epsilon",
        metavar="X",
        default="8/255",
        methods=names.METHODS,
        panel=NOISE,
        help="Budget: the largest change of an element, as a share of the window's width; a number or a fraction such as 4/255. "
        "Larger is stronger and easier to see.",
    ),
    Setting(
        name="mask_ratio",
        metavar="X",
        default="0.3",
        methods=("salm",),
        panel=SALM,
        help="Share of an image's elements (those with the largest gradients) that a noise step may change, above 0 up to 1.",
    ),
    Setting(
        name="mask_scope",
        metavar="step|sample",
        default="step",
        methods=("salm",),
        panel=SALM,
        values=("step", "sample"),
        help="step: the mask is chosen anew at each noise step. sample: one mask for each image, and all elements outside it "
        "keep the original's bits; weaker, and harder to see.",
    ),
    Setting(
        name="views",
        metavar="A[,B]",
        default="no views",
        methods=("salm",),
        panel=SALM,
        values=names.VIEWS,
        several=True,
        help="What the noise is to outlive, for labels per image: augment (flips and shifts), jpeg, blur, median, bit_depth, "
        "resample, gamma, orthogonal_projection (a linear model's direction is taken out). Surrogates and noise steps then see "
        "the images through these, one drawn for each part of a batch; none, beside others, leaves a part as it is. jpeg, blur, "
        "median and resample make the pattern of a class coarse; orthogonal_projection starts it at another place in every "
        "image. Each costs strength elsewhere, so name what you expect and measure it with evaluate.",
    ),
    Setting(
        name="target",
        metavar="next|label",
        default="next for labels per image with start class, else label; label for the controls of mask source and for classwise "
        "noise",
        methods=("salm",),
        panel=SALM,
        values=("next", "label"),
        help="What noise steps make the surrogate answer. next: the class after the true one, as suits start class. label: the "
        "true one (error-minimising noise).",
    ),
    Setting(
        name="plain_class",
        metavar="N",
        default="the rarest class",
        methods=("salm",),
        panel=SALM,
        help="For labels per image with start class: the class that gets no pattern, only masked noise steps, so that networks "
        "take clean images for it.",
    ),
    Setting(
        name="mask_source",
        metavar="gradient|random|foreground",
        default="gradient",
        methods=("salm",),
        panel=SALM,
        values=("gradient", "random", "foreground"),
        help="How masks are chosen: gradient is SALM; random and foreground are controls to compare with.",
    ),
    Setting(
        name="mask_smoothing",
        metavar="N",
        default="5 for labels per image with start class and mask scope sample, else 1",
        methods=("salm",),
        panel=SALM,
        help="Edge, in elements, of the neighbourhood over which gradients are averaged before the largest are chosen; odd, 1 is "
        "none.",
    ),
    Setting(
        name="start",
        metavar="class|zero",
        default="class for one label per image or voxel, else zero; zero for the controls of mask source and for classwise noise",
        others={"zero": ("em", "rem", "sem", "tap", "interslice_em", "roi_em")},
        values=("class", "zero"),
        help="What noise begins as. class: a fine pattern that images (or voxels) of a class share. zero: nothing, as in the "
        "paper.",
    ),
    Setting(
        name="rounds",
        metavar="N",
        default="one for each surrogate with target next; 0 for labels per voxel with start class and gradient masks, but 1 with "
        "mask scope sample; else 22 for images and 8 for volumes",
        others={"50 for images and 20 for volumes": _EM, "10 for images and 4 for volumes": _REM, "1": ("tap",)},
        help="Turns of surrogate training and noise steps; 0 leaves the noise as it begins.",
    ),
    Setting(
        name="surrogate_steps",
        metavar="N",
        default="150 with target next, else 45",
        others={"10": _EM, "50": _REM, "40 passes over the data": ("tap",)},
        help="Batches that the surrogate trains on in each round.",
    ),
    Setting(
        name="num_steps",
        metavar="N",
        default="2 with target next, else 4",
        others={"20": _EM, "10": _REM, "250": ("tap",)},
        help="Noise steps for an image in each round.",
    ),
    Setting(
        name="step_size",
        metavar="X",
        default="all of epsilon",
        others={"a tenth of epsilon": _EM, "a fifth of epsilon": _REM, "a twentieth of epsilon": ("tap",)},
        help="Length of a noise step, as a share of the window's width.",
    ),
    Setting(
        name="restart_every",
        metavar="N",
        default="1",
        others={"0": (*_EM, *_REM)},
        help="Rounds after which the surrogate starts from fresh weights; 0 is never.",
    ),
    Setting(
        name="stop_error",
        metavar="X",
        default="none",
        others={"0.01": _EM},
        help="Stop once the surrogate's error on the protected images is at most this. A low error is no sign of strong noise.",
    ),
    Setting(
        name="calibration_steps",
        metavar="N",
        default="0",
        help="Batches on which the surrogate's batch normalisation is measured anew before the noise steps.",
    ),
    Setting(
        name="perturb_type",
        metavar="samplewise|classwise",
        default="samplewise",
        values=("samplewise", "classwise"),
        help="samplewise: noise for every image. classwise: one noise for all images of a class.",
    ),
    Setting(
        name="attack_radius",
        metavar="X",
        default="half of epsilon",
        methods=_REM,
        panel=OTHERS,
        help="radius of the adversarial attack, as a share of the window's width.",
    ),
    Setting(
        name="attack_steps",
        metavar="N",
        default="10",
        methods=_REM,
        panel=OTHERS,
        help="steps of that attack, each a fifth of its radius.",
    ),
    Setting(
        name="draws",
        metavar="N",
        default="5",
        methods=_REM,
        panel=OTHERS,
        help="transformations and attacks over which a noise step's gradient is averaged.",
    ),
    Setting(
        name="max_shift",
        metavar="N",
        default="4",
        methods=(*_REM, "tap"),
        panel=OTHERS,
        help="largest random shift, in elements; images are flipped at random as well.",
    ),
    Setting(
        name="rms",
        metavar="X",
        default="0.75",
        others={"0.575": ("ar",)},
        methods=("lsp", "ar"),
        panel=OTHERS,
        help="root mean square of the noise before it is clipped, as a share of epsilon.",
    ),
    Setting(
        name="patches",
        metavar="N",
        default="4",
        methods=("lsp",),
        panel=OTHERS,
        help="patches along each axis of an image.",
    ),
    Setting(
        name="window_size",
        metavar="N",
        default="3",
        methods=("ar",),
        panel=OTHERS,
        help="elements of the autoregressive window along each axis, 2 to 4.",
    ),
    Setting(
        name="slice_weight",
        metavar="X",
        default="1.0",
        methods=("interslice_em",),
        panel=OTHERS,
        help="weight of the inter-slice term beside the surrogate's loss.",
    ),
    Setting(
        name="slice_axis",
        metavar="N",
        default="2",
        methods=("interslice_em",),
        panel=OTHERS,
        help="spatial axis across which slices are stacked, 0 to 2.",
    ),
    Setting(
        name="margin",
        metavar="N",
        default="3",
        methods=("roi_em",),
        panel=OTHERS,
        help="elements around the foreground (label above 0), along every axis and diagonal.",
    ),
    Setting(
        name="roi_part",
        metavar="both|texture|contour",
        default="both",
        methods=("roi_em",),
        panel=OTHERS,
        values=("both", "texture", "contour"),
        help="both is the foreground with its margin, texture the foreground alone, contour the margin on either side "
        "of its boundary.",
    ),
)
