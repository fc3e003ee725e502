"""What the experiment runs: the net, the sizes of training set, lengths, seeds. All of it is this project's own choice.

Prediction, before the first run: one core trains the net at 3,700 pictures/s and its augmented forms at 2,000 (batches of
64, measured on an idle core). A seed of the small size then takes about 14 minutes, one of the large size 30, the choice of rate
and strength 25; everything together 3 hours of one core.

Fewer passes were tried first (40, 5 and 12 at the small size, one seed for the choice). The net was still learning: 27 % of
its training pictures were wrong, no strength did better than the weakest by more than chance, and the variants of two seeds
differed from the baseline by less than 0.2 points. Passes were tripled, and the choice is made with two seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KINDS, OBJECTIVES = ("sae", "swwae"), ("first", "all", "layerwise")
VARIANTS = tuple(f"{kind}_{objective}" for kind in KINDS for objective in OBJECTIVES)


@dataclass(frozen=True)
class Size:
    """A size of training set, and how long is trained on it, in passes over it.

    Attributes:
        images: the training set, drawn anew for each seed from the training pictures that are not for validation.
        seeds: of the set, initial weights, data order and dropout.
        pretrain: passes of step 1, the classification net from random weights.
        decode: passes of each of steps 2 and 3.
        finetune: passes of step 4, and of the baseline that is trained on beside it.
    """

    images: int
    seeds: tuple[int, ...]
    pretrain: int
    decode: int
    finetune: int


@dataclass(frozen=True)
class Config:
    """The whole experiment. Passes, rates and strengths are tried at ``chosen_on`` on the validation pictures alone."""

    stages: tuple[tuple[int, int], ...] = ((2, 16), (2, 32), (2, 64))
    hidden: tuple[int, ...] = (128,)
    crop: int = 24  # of 32: random crops and mirror images in training, as 224 of 256 in the paper
    batch: int = 50
    validation: int = 5000  # of the 50,000 training pictures, the same for every seed
    sizes: dict[str, Size] = field(
        default_factory=lambda: {
            "small": Size(4000, (1, 2, 3, 4, 5), pretrain=120, decode=10, finetune=40),
            "large": Size(40000, (1, 2, 3), pretrain=24, decode=2, finetune=8),
        }
    )
    chosen_on: str = "small"
    choice_seeds: tuple[int, ...] = (-1, 0)  # of the choice alone: no set that is reported on has a part in it
    rates: tuple[float, ...] = (3e-4, 1e-3)  # of step 4, chosen with the baseline
    strengths: tuple[float, ...] = (0.05, 0.5, 5.0)  # of the rule for loss weights, one for all variants
    chosen_with: tuple[str, ...] = ("sae_all", "swwae_all")
    pretrain_rate: float = 2e-3
    decode_rate: float = 2e-3
    weight_decay: float = 5e-4
    reconstructed_at: str = "small"
    reconstruction_seeds: tuple[int, ...] = (1, 2, 3)
    reconstructed: int = 500  # test pictures
    scored: int = 10000  # at most so many test pictures, and training pictures, are scored


FULL = Config()
SMOKE = Config(
    stages=((2, 4), (1, 6)),
    hidden=(8,),
    batch=10,
    validation=20,
    sizes={"small": Size(20, (1,), 1, 1, 1)},
    rates=(1e-3,),
    strengths=(0.5,),
    choice_seeds=(0,),
    chosen_with=("swwae_all",),
    reconstruction_seeds=(1,),
    reconstructed=4,
    scored=20,
)
