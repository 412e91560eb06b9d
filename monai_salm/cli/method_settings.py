"""The settings of the noise methods as options: what the manual says of each.

They are written out, and not made of the methods' dataclasses, for two reasons: that would import torch, for which neither
``--help`` nor a shell's TAB should wait; and a docstring speaks to programmers. A test holds names and defaults to the dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass

from monai_salm.cli import names
from monai_salm.cli.manual import NOISE, OTHERS, STEPS


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of one or more methods.

    Args:
        name: of the field in the dataclass.
        metavar: what is to be given.
        help: what it does, for users.
        default: of ``method``, as shown; empty if ``help`` says it.
        method: the first method that has it.
        panel: section of the manual.
        values: the names it takes, for completion.
        several: whether several of them may be given, with commas.
    """

    name: str
    metavar: str
    help: str
    default: str = ""
    method: str = "salm"
    panel: str = STEPS
    values: tuple[str, ...] = ()
    several: bool = False

    @property
    def flag(self) -> str:
        """How the option is written."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def text(self) -> str:
        """The help text with the default."""
        return f"{self.help} [default: {self.default}]" if self.default else self.help


SETTINGS = (
    Setting(
        name="epsilon",
        metavar="X",
        default="8/255",
        panel=NOISE,
        help="Budget: the largest change of an element, as a share of the window's width; a number or a fraction such as 4/255. "
        "Larger is stronger and easier to see.",
    ),
    Setting(
        name="mask_ratio",
        metavar="X",
        default="0.3",
        panel=NOISE,
        help="Share of an image's elements (those with the largest gradients) that a noise step may change, above 0 up to 1.",
    ),
    Setting(
        name="mask_scope",
        metavar="step|sample",
        default="step",
        panel=NOISE,
        values=("step", "sample"),
        help="step: the mask is chosen anew at each noise step. sample: one mask for each image, and all elements outside it "
        "keep the original's bits; weaker, and harder to see.",
    ),
    Setting(
        name="views",
        metavar="A[,B]",
        panel=NOISE,
        values=names.VIEWS,
        several=True,
        help="What the noise is to outlive, for labels per image: augment (flips and shifts), jpeg, blur, median, bit_depth, "
        "resample, gamma, orthogonal_projection (a linear model's direction is taken out). Surrogates and noise steps then see "
        "the images through these, one drawn for each part of a batch; none, beside others, leaves a part as it is. jpeg, blur, "
        "median and resample make the pattern of a class coarse; orthogonal_projection starts it at another place in every "
        "image. Each costs strength elsewhere, so name what you expect and measure it with evaluate. Nothing if not given.",
    ),
    Setting(
        name="start",
        metavar="class|zero",
        panel=NOISE,
        values=("class", "zero"),
        help="What noise begins as. class: a fine pattern that images (or voxels) of a class share. zero: nothing, as in the "
        "paper. salm takes class where there is one label per image or voxel, else zero; the other methods zero.",
    ),
    Setting(
        name="target",
        metavar="next|label",
        panel=NOISE,
        values=("next", "label"),
        help="What noise steps make the surrogate answer. next: the class after the true one, as suits start class. label: the "
        "true one (error-minimising noise). Chosen by start if not given.",
    ),
    Setting(
        name="plain_class",
        metavar="N",
        panel=NOISE,
        help="The class that gets no pattern, only masked noise steps, so that networks take clean images for it. The rarest "
        "if not given.",
    ),
    Setting(
        name="mask_source",
        metavar="gradient|random|foreground",
        default="gradient",
        panel=NOISE,
        values=("gradient", "random", "foreground"),
        help="How masks are chosen: gradient is SALM; random and foreground are controls to compare with.",
    ),
    Setting(
        name="mask_smoothing",
        metavar="N",
        panel=NOISE,
        help="Edge, in elements, of the neighbourhood over which gradients are averaged before the largest are chosen; odd, 1 is "
        "none. 5 for one mask per image on top of a pattern, else 1, if not given.",
    ),
    Setting(
        name="rounds",
        metavar="N",
        help="Turns of surrogate training and noise steps; 0 leaves the noise as it begins. If not given: with target next one "
        "for each surrogate, else 22 for images and 8 for volumes; none for segmentation with start class.",
    ),
    Setting(
        name="surrogate_steps",
        metavar="N",
        help="Batches that the surrogate trains on in each round. 150 with target next, else 45, if not given.",
    ),
    Setting(
        name="num_steps",
        metavar="N",
        help="Noise steps for an image in each round. 2 with target next, else 4, if not given.",
    ),
    Setting(
        name="step_size",
        metavar="X",
        help="Length of a noise step, as a share of the window's width. All of epsilon for salm if not given.",
    ),
    Setting(
        name="restart_every",
        metavar="N",
        default="1",
        help="Rounds after which the surrogate starts from fresh weights; 0 is never, as in EM's published code.",
    ),
    Setting(
        name="stop_error",
        metavar="X",
        default="none",
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
        method="rem",
        panel=OTHERS,
        help="rem, sem: radius of the adversarial attack, as a share of the window's width. Half of epsilon if not given.",
    ),
    Setting(
        name="attack_steps",
        metavar="N",
        default="10",
        method="rem",
        panel=OTHERS,
        help="rem, sem: steps of that attack, each a fifth of its radius.",
    ),
    Setting(
        name="draws",
        metavar="N",
        default="5",
        method="rem",
        panel=OTHERS,
        help="rem, sem: transformations and attacks over which a noise step's gradient is averaged.",
    ),
    Setting(
        name="max_shift",
        metavar="N",
        default="4",
        method="rem",
        panel=OTHERS,
        help="rem, sem, tap: largest random shift, in elements; images are flipped at random as well.",
    ),
    Setting(
        name="rms",
        metavar="X",
        default="0.75",
        method="lsp",
        panel=OTHERS,
        help="lsp: root mean square of the noise before it is clipped, as a share of epsilon.",
    ),
    Setting(name="patches", metavar="N", default="4", method="lsp", panel=OTHERS, help="lsp: patches along each axis."),
    Setting(
        name="window_size",
        metavar="N",
        default="3",
        method="ar",
        panel=OTHERS,
        help="ar: elements of the autoregressive window along each axis, at least 2.",
    ),
    Setting(
        name="slice_weight",
        metavar="X",
        default="1.0",
        method="interslice_em",
        panel=OTHERS,
        help="interslice_em: weight of the inter-slice term beside the surrogate's loss.",
    ),
    Setting(
        name="slice_axis",
        metavar="N",
        default="2",
        method="interslice_em",
        panel=OTHERS,
        help="interslice_em: spatial axis across which slices are stacked, 0 to 2.",
    ),
    Setting(
        name="margin",
        metavar="N",
        default="3",
        method="roi_em",
        panel=OTHERS,
        help="roi_em: elements around the foreground (label above 0), along every axis and diagonal.",
    ),
    Setting(
        name="roi_part",
        metavar="both|texture|contour",
        default="both",
        method="roi_em",
        panel=OTHERS,
        values=("both", "texture", "contour"),
        help="roi_em: both is the foreground with its margin, texture the foreground alone, contour the margin on either side "
        "of its boundary.",
    ),
)
