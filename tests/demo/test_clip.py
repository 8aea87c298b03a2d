"""Drawn clips: reproducible, all different, and files that decode to what was drawn."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from raydist.demo import clip, motions, pool
from raydist.demo.words import MOTIONS, OBJECTS, SCENES, Combination, combinations, held_out_combinations

SHOWN = Combination(object="star", colour="red", motion="right", scene="hills")


def test_the_same_seed_draws_the_same_pictures() -> None:
    assert np.array_equal(clip.render(SHOWN, 5), clip.render(SHOWN, 5))


@pytest.mark.parametrize("scene", ["sunset", "snow", "underwater"])
def test_the_same_pictures_are_encoded_to_the_same_bytes(scene: str) -> None:
    for shown in [each for each in combinations() if each.scene == scene][::60][:6]:
        files = set()
        for _ in range(4):
            drawing, file = clip.prepare(shown, 2), io.BytesIO()
            clip.encode((drawing.draw(number) for number in range(0, drawing.frames, 3)), file)
            files.add(file.getvalue())
        assert len(files) == 1, shown


def test_no_two_seeds_draw_the_same_clip() -> None:
    firsts = {np.asarray(clip.prepare(SHOWN, seed).draw(0)).tobytes() for seed in range(20)}
    assert len(firsts) == 20


def test_one_seed_draws_another_background_for_another_combination() -> None:
    stills = {clip.prepare(shown, 1).scene.still.tobytes() for shown in combinations()[:: len(combinations()) // 40]}
    assert len(stills) >= 40


@pytest.mark.parametrize("scene", SCENES)
def test_a_file_decodes_to_the_clip_that_was_drawn(scene: str, tmp_path: Path) -> None:
    shown = next(each for each in held_out_combinations() if each.scene == scene)
    file = tmp_path / "clip.mp4"
    frames = clip.write(shown, 3, file)
    drawn = clip.render(shown, 3)
    with av.open(str(file)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert decoded.shape == drawn.shape == (frames, 240, 320, 3)
    assert clip.MIN_FRAMES <= frames <= clip.MAX_FRAMES
    assert np.abs(decoded.astype(int) - drawn).mean() < 6


def test_a_clip_lasts_two_to_three_seconds() -> None:
    assert 2.0 <= clip.MIN_FRAMES / clip.FPS <= clip.MAX_FRAMES / clip.FPS <= 3.0


@pytest.mark.parametrize("thing", OBJECTS)
def test_the_object_is_seen_in_its_colour(thing: str) -> None:
    drawing = clip.prepare(Combination(object=thing, colour="red", motion="circle", scene="snow"), 2)
    picture = np.asarray(drawing.draw(6)).astype(int)
    red = (picture[..., 0] - picture[..., 1:].max(-1)) > 60
    assert red.sum() > 600


@pytest.mark.parametrize("seed", range(8))
def test_motions_go_where_their_name_says(seed: int) -> None:
    paths = {motion: motions.path(motion, np.random.default_rng(seed)) for motion in MOTIONS}
    first, last = ({motion: at(t) for motion, at in paths.items()} for t in (0.0, 1.0))
    assert last["right"].x - first["right"].x > 0.5
    assert last["left"].x - first["left"].x < -0.5
    assert last["rise"].y - first["rise"].y < -0.5
    assert last["fall"].y - first["fall"].y > 0.5
    assert last["grow"].radius > 2 * first["grow"].radius
    assert last["shrink"].radius * 2 < first["shrink"].radius


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_object_stays_in_the_picture(motion: str) -> None:
    for seed in range(20):
        path = motions.path(motion, np.random.default_rng(seed))
        for t in np.linspace(0, 1, 25):
            place = path(float(t))
            assert -0.05 < place.x < 1.05
            assert -0.1 < place.y < 1.1


def test_training_sees_nearly_what_embedding_sees(tmp_path: Path) -> None:
    from raydist.clips.decode import decode_clip

    clip.write(SHOWN, 9, tmp_path / "clip.mp4")
    seen = pool.see(SHOWN, 9, 64)
    embedded = decode_clip(tmp_path / "clip.mp4", frames=8, size=64, resize="viclip")
    assert seen.shape == embedded.shape == (8, 64, 64, 3)
    assert np.abs(seen.astype(int) - embedded).mean() < 5
