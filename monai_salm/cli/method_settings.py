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
_LOOPS = (*_EM, *_REM, "tap")
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
        default="0.5",
        methods=("salm",),
        panel=SALM,
        help="Share of an image's elements that may carry noise, above 0 up to 1: those with the largest gradients. All others keep "
        "the original's bits.",
    ),
    Setting(
        name="mask_area",
        metavar="N",
        default="7 (5 for segmentation)",
        methods=("salm",),
        panel=SALM,
        help="Edge, in elements of what the network sees, of the neighbourhood over which gradients are averaged before the "
        "largest are chosen; odd, 1 is none.",
    ),
    Setting(
        name="mask_scope",
        metavar="sample|step",
        default="sample",
        methods=("salm",),
        panel=SALM,
        values=("sample", "step"),
        help="sample: one mask for each image. step: another at each noise step, as in the paper; then the share holds for a step, "
        "not for the sum. Only with error_minimizing.",
    ),
    Setting(
        name="perturbation",
        metavar="NAME",
        default="class_texture",
        methods=("salm",),
        panel=SALM,
        values=names.PERTURBATIONS,
        help="What is put inside the mask. class_texture: a texture of the class, from a secret key, that survives resampling and "
        "augmentation. error_minimizing: steps that lower a network's loss, as in the paper.",
    ),
    Setting(
        name="period",
        metavar="X",
        default="4 (2 for segmentation)",
        methods=("salm",),
        panel=SALM,
        help="class_texture: shortest period, in elements of the resolution at which networks will be trained. Images below 48 pixels "
        "a side take 2, and a mask ratio of 0.5.",
    ),
    Setting(
        name="train_side",
        metavar="N",
        default="224",
        methods=("salm",),
        panel=SALM,
        help="class_texture: pixels of the shorter side at which networks will be trained at least (2D); images of up to twice that "
        "size are halved.",
    ),
    Setting(
        name="train_spacing",
        metavar="MM",
        default="1.5",
        methods=("salm",),
        panel=SALM,
        help="class_texture: millimetres of the voxels at which networks will be trained (3D); 1.5 times those of the file where "
        "that is more.",
    ),
    Setting(
        name="plain",
        metavar="true|false",
        default="true",
        methods=("salm",),
        panel=SALM,
        values=("true", "false"),
        help="class_texture: whether the rarest class has no texture, so that networks take clean images for it.",
    ),
    Setting(
        name="sees_texture",
        metavar="true|false",
        default="false (true for segmentation)",
        methods=("salm",),
        panel=SALM,
        values=("true", "false"),
        help="class_texture: whether the surrogate that chooses the masks trains on textured images and is asked about them.",
    ),
    Setting(
        name="rounds",
        metavar="N",
        default="22 with error_minimizing",
        others={"50": _EM, "10": _REM, "1": ("tap",)},
        help="Turns of surrogate training and noise steps.",
    ),
    Setting(
        name="surrogate_steps",
        metavar="N",
        default="100 with class_texture (150 for segmentation), 45 with error_minimizing",
        others={"10": _EM, "50": _REM, "1200": ("tap",)},
        help="Batches that the surrogate trains on in each round.",
    ),
    Setting(
        name="num_steps",
        metavar="N",
        default="4 with error_minimizing",
        others={"20": _EM, "10": _REM, "250": ("tap",)},
        help="Noise steps for an image in each round.",
    ),
    Setting(
        name="step_size",
        metavar="X",
        default="1 with error_minimizing",
        others={"0.1": _EM, "0.2": _REM, "0.05": ("tap",)},
        help="Length of a noise step, as a share of epsilon.",
    ),
    Setting(
        name="restart_every",
        metavar="N",
        default="1 with error_minimizing",
        others={"0": (*_EM, *_REM), "1": ("tap",)},
        help="Rounds after which the surrogate starts from fresh weights; 0 is never.",
    ),
    Setting(
        name="stop_error",
        metavar="X",
        default="0.01",
        others={"0": (*_REM, "tap")},
        methods=_LOOPS,
        panel=OTHERS,
        help="stop once the surrogate's error on the protected images is at most this; 0 never does.",
    ),
    Setting(
        name="calibration_steps",
        metavar="N",
        default="0",
        methods=_LOOPS,
        panel=OTHERS,
        help="batches on which the surrogate's batch normalisation is measured anew before the noise steps.",
    ),
    Setting(
        name="perturb_type",
        metavar="samplewise|classwise",
        default="samplewise",
        values=("samplewise", "classwise"),
        methods=_LOOPS,
        panel=OTHERS,
        help="samplewise is noise for every image, classwise one noise for all images of a class.",
    ),
    Setting(
        name="attack_radius",
        metavar="X",
        default="0.5",
        methods=_REM,
        panel=OTHERS,
        help="radius of the adversarial attack, as a share of epsilon.",
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
        name="part",
        metavar="both|texture|contour",
        default="both",
        methods=("roi_em",),
        panel=OTHERS,
        values=("both", "texture", "contour"),
        help="both is the foreground with its margin, texture the foreground alone, contour the margin on either side "
        "of its boundary.",
    ),
)
