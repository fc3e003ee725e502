"""Windows by the rules of SSD's Caffe (sampler.cpp), trial after trial, against all at once."""

import numpy as np
import pytest
from one_box import area, shared, some_boxes

from pycaffe_compat.data.sampling import WindowSampler
from pycaffe_compat.proto import caffe_pb2, parse_text

SAMPLERS = """
batch_sampler { max_sample: 1 max_trials: 1 }
batch_sampler { sampler { min_scale: 0.3 min_aspect_ratio: 0.5 max_aspect_ratio: 2 }
  sample_constraint { min_jaccard_overlap: 0.5 } max_sample: 2 max_trials: 30 }
batch_sampler { sampler { min_scale: 0.2 max_scale: 0.9 } sample_constraint { max_jaccard_overlap: 0.01 } max_trials: 20 }
batch_sampler { sampler { min_scale: 0.2 max_scale: 0.9 min_aspect_ratio: 9 max_aspect_ratio: 30 }
  sample_constraint { min_sample_coverage: 0.2 max_sample_coverage: 0.7 min_object_coverage: 2 } max_sample: 3 max_trials: 20 }
batch_sampler { sampler { min_scale: 0.5 } sample_constraint { min_object_coverage: 0.9 } max_sample: 1 }
batch_sampler { use_original_image: false }
batch_sampler { max_sample: 0 }
batch_sampler { sampler { min_scale: 0.9 } max_trials: 2 }
"""
KINDS = ("jaccard_overlap", "sample_coverage", "object_coverage")


def samplers(text: str):
    return parse_text(text, caffe_pb2.AnnotatedDataParameter).batch_sampler


def satisfied(window, boxes, constraint) -> bool:
    """SatisfySampleConstraint, whose ``found`` outlives the object that set it."""
    has = [any(constraint.HasField(f"{end}_{kind}") for end in ("min", "max")) for kind in KINDS]
    if not any(has):
        return True
    found = False
    for box, size in zip(boxes.corners, boxes.sizes, strict=True):
        common, own, other = area(shared(window, box)), area(window), area(box, size)
        if common > 0:
            values = common / (own + other - common), common / own, common / other
        else:
            values = (0, 0, 0)
        for kind, value in ((kind, value) for kind, value, wanted in zip(KINDS, values, has, strict=True) if wanted):
            if constraint.HasField(f"min_{kind}") and value < np.float32(getattr(constraint, f"min_{kind}")):
                break
            if constraint.HasField(f"max_{kind}") and value > np.float32(getattr(constraint, f"max_{kind}")):
                break
            found = True
        else:
            return True
    return found


def candidates(sampler, windows, boxes) -> list:
    """What GenerateBatchSamples collects, if the trials of all samplers are these windows."""
    found, at = [], 0
    for each in sampler:
        passed = 0
        most = each.max_sample if each.HasField("max_sample") else np.inf
        constrained = any(each.sample_constraint.ListFields())
        trials = each.max_trials if each.use_original_image and most > 0 else 0
        trials = trials if constrained or most == np.inf else min(trials, most)
        for window in windows[at : at + trials]:
            if passed < most and satisfied(window, boxes, each.sample_constraint):
                found.append(window)
                passed += 1
        at += trials
    assert at == len(windows)
    return found


@pytest.mark.parametrize("count", [0, 2, 9])
def test_windows_pass_as_in_ssd(count) -> None:
    every = samplers(SAMPLERS)
    sampler, random = WindowSampler(every), np.random.default_rng(count)
    seen = set()
    for seed in range(12):
        boxes, drawn = some_boxes(seed, count, 1.0), random.random(sampler.draws)
        found = candidates(every, sampler.windows(drawn[1:]), boxes)
        seen.add(len(found))
        for share in (0.0, 0.4, 0.999):
            drawn[0] = share
            np.testing.assert_array_equal(sampler(boxes, drawn), found[int(share * len(found))])
    assert len(seen) > (1 if count else 0)


def test_windows_have_ssds_sizes_and_places() -> None:
    ranges = "min_scale: 0.3 max_scale: 0.8 min_aspect_ratio: 0.5 max_aspect_ratio: 4"
    sampler = WindowSampler(samplers(f"batch_sampler {{ sampler {{ {ranges} }} max_trials: 4000 }}"))
    drawn = np.random.default_rng(0).random(sampler.draws - 1)
    left, top, right, bottom = sampler.windows(drawn).T
    width, height = right - left, bottom - top
    scale = 0.3 + 0.5 * drawn[:4000]
    aspect = np.clip(0.5 + 3.5 * drawn[4000:8000], scale**2, scale**-2)
    np.testing.assert_allclose(np.sqrt(width * height), scale, rtol=1e-5)
    np.testing.assert_allclose(width / height, aspect, rtol=1e-5)
    assert left.min() >= 0 and top.min() >= 0 and right.max() <= 1.000001 and bottom.max() <= 1.000001
    free = left[width < 0.9] / (1 - width[width < 0.9])
    assert abs(free.mean() - 0.5) < 0.02 and abs(free.std() - 12**-0.5) < 0.02


def test_square_windows_are_a_share_of_the_shorter_side() -> None:
    """As sampler.cpp of sfzhang15/FaceBoxes."""
    ranges = "min_scale: 0.3 max_scale: 1 min_aspect_ratio: 0.5 max_aspect_ratio: 2"
    sampler = WindowSampler(samplers(f"batch_sampler {{ sampler {{ {ranges} }} max_trials: 50 }}"), square=True)
    drawn = np.random.default_rng(0).random(sampler.draws - 1)
    for height, width in ((300, 500), (500, 300), (200, 200)):
        left, top, right, bottom = sampler.windows(drawn, (height, width)).T
        sides = (right - left) * width, (bottom - top) * height
        for side in sides:
            np.testing.assert_allclose(side, (0.3 + 0.7 * drawn[:50]) * min(height, width), rtol=1e-4)
        assert left.min() >= 0 and top.min() >= 0 and right.max() <= 1.000001 and bottom.max() <= 1.000001


def test_no_window_passes_where_none_can() -> None:
    sampler = WindowSampler(samplers("batch_sampler { sample_constraint { min_jaccard_overlap: 1.1 } }"))
    assert sampler(some_boxes(0), np.full(sampler.draws, 0.5)) is None
    assert WindowSampler(samplers("batch_sampler { max_sample: 0 }"))(some_boxes(0), np.array([0.3])) is None
