"""Prompts that a text encoder saw only the beginning of are told, whatever the tokenizer, the template and the window."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genrun.adapters.adapter import Adapter
from genrun.adapters.pipeline.encoders import Cut, cuts, watching
from genrun.adapters.sampling.call import SamplingRequest
from genrun.adapters.sampling.embeddings import cut_in, encode, pack, unpack
from tests.tiny import build, text
from tests.unit.test_generate import request_for

AUTO = Adapter("auto", "any")
LONG = "a red circle moving left and " * 40 + "a blue square"


def cuts_of(family: str, prompt: str, negative: str | None = None, **options: Any) -> tuple[Cut, ...]:
    pipe, request = build(family), request_for(family)
    sampling = {**request.sampling, "options": {**request.sampling["options"], **options}}
    with watching(pipe, sampling["options"]) as seen:
        encode(pipe, AUTO, SamplingRequest(prompt, 0, sampling, negative))
    return cuts(seen, prompt, negative)


def test_every_encoder_that_cuts_is_named_and_the_one_that_sees_all() -> None:
    first, second = cuts_of("sd3", LONG, max_sequence_length=512)
    assert (first.component, second.component) == ("text_encoder", "text_encoder_2")
    assert first.window == 77
    assert first.tokens > first.window
    assert first.seen_whole == ("text_encoder_3",)
    assert LONG.find(first.lost.rstrip("…")) > 0
    assert "text_encoder_3 saw all of it" in str(first)


@pytest.mark.parametrize(
    "family", ["flux", "hunyuanvideo", "wan21", "cogvideox_ddim", "ltx", "sd2", "qwenimage", "flux2"]
)
def test_a_prompt_beyond_any_window_is_told_for_every_family(family: str) -> None:
    assert cuts_of(family, LONG * 6)


@pytest.mark.parametrize(
    "family", ["sd3", "flux", "hunyuanvideo", "wan21", "cogvideox_ddim", "ltx", "sd2", "qwenimage"]
)
def test_a_short_prompt_is_not_cut(family: str) -> None:
    assert cuts_of(family, "a red circle", "gray") == ()


def test_encodings_that_are_cut_behind_the_encoder_are_told() -> None:
    pipe, request = build("qwenimage"), request_for("qwenimage")
    before = pipe.prompt_template_encode.partition("{}")[0]
    pipe.prompt_template_encode_start_idx = len(pipe.tokenizer(before)["input_ids"])
    for length, is_cut in ((16, True), (1024, False)):
        options = {"max_sequence_length": length}
        with watching(pipe, options) as seen:
            encode(pipe, AUTO, SamplingRequest(LONG, 0, {**request.sampling, "options": options}))
        found = cuts(seen, LONG, None)
        assert bool(found) == is_cut
        assert all(each.lost.rstrip("…") in LONG for each in found), found


def test_the_negative_prompt_is_told_from_the_prompt() -> None:
    (found,) = cuts_of("sd2", "a red circle", LONG)
    assert found.is_negative
    assert str(found).startswith("the negative prompt: text_encoder saw 77 of its")


def test_what_was_cut_is_kept_with_the_encodings(tmp_path: Path) -> None:
    found = cuts_of("sd3", LONG)
    path = tmp_path / "encodings"
    path.write_bytes(pack({}, found))
    assert cut_in(path) == found
    assert unpack(path.read_bytes()) == {}


def test_encodings_of_an_earlier_version_tell_nothing(tmp_path: Path) -> None:
    path = tmp_path / "encodings"
    path.write_bytes(pack({}))
    assert cut_in(path) == ()
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="no encodings"):
        cut_in(path)


def test_a_tokenizer_is_left_as_it_was() -> None:
    pipe = build("sd2")
    plain = type(pipe.tokenizer)
    with watching(pipe) as seen:
        given = pipe.tokenizer("a red circle", padding="max_length", max_length=4, truncation=True)
        pipe.tokenizer("a red circle", padding="longest")
    assert type(pipe.tokenizer) is plain
    assert len(given["input_ids"]) == 4
    assert [(each.window, bool(each.lost)) for each in seen] == [(4, True), (None, False)]


def test_a_tokenizer_that_cuts_in_front_loses_the_beginning() -> None:
    tokenizer = text.t5_tokenizer()
    tokenizer.truncation_side = "left"
    with watching(SimpleNamespace(components={"tokenizer": tokenizer})) as seen:
        tokenizer("first then last", max_length=4, truncation=True)
    assert "first".startswith(seen[0].lost[:3])
