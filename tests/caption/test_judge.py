"""Answers become captions or reasons: talk around a caption goes, one that looks like talk stays, and all fits."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest
import small_models
from hypothesis import example, given
from hypothesis import strategies as st

from raydist.caption.clean import cleaned
from raydist.caption.cutting import DANGLING
from raydist.caption.judge import cut, judged
from raydist.models.lengths import TextLimit, limit_of

VICLIP, CLIP = TextLimit(32), TextLimit(77)

UNTOUCHED = [
    "A person says sorry",
    "A man is sorry and cannot look up.",
    "A sign on the door reads 'Sorry, we're closed'.",
    "\"Sorry, we're closed\" hangs on a shop door.",
    "Sorry, we're closed: a paper sign on a glass door.",
    "Unfortunately placed chairs block the aisle.",
    "A video game is shown on a screen",
    "This video store is closed",
    "The video game shows on a large television.",
    "The video shows on the wall behind the band.",
    "The video displays hang above the stage.",
    "A picture of a horse hangs above the bed.",
    "The picture on the wall shows a horse.",
    "This picture hangs crooked on the wall.",
    "The film crew captures a scene on the beach.",
    "The image of a saint is carried through the street.",
    "A photo of a cat lies on a desk.",
    "A clip holds the papers together.",
    "The screen shows a map of the city.",
    "The camera captures the eye of a tourist, who laughs.",
    "The frame of the bicycle is bent.",
    "The frames of the windows are painted green.",
    "The sequence of traffic lights turns green.",
    "In the video shop, a man looks at shelves.",
    "In the picture frame stands a small glass bird.",
    "In this village, children play football.",
    "In the clip of her hair sits a blue flower.",
    "A scene painter works on a backdrop.",
    "No people are visible on the empty street.",
    "No cars drive over the bridge at night.",
    "Nothing is visible through the thick fog but a lamp.",
    "Nothing but sand lies between the tents.",
    "An empty room with a desk and chair in it",
    "A black screen.",
    "Unable to open the jar, a boy asks his mother.",
    "Unable to see the road, a driver stops in the snow.",
    "Cannot is a word on the blackboard.",
    "As an assistant coach watches, players run laps.",
    "As an AI-driven robot turns, people clap.",
    "As a model walks the runway, cameras flash.",
    "I am written in white letters on a red wall.",
    "Please wait here, says a sign before the counter.",
    "This is a dog.",
    "This request stop has a bench and a timetable.",
    "The content of the box spills onto the floor.",
    "Here is where the river meets the sea.",
    "Sure-footed goats climb a cliff.",
    "Sure enough, the cake is cut.",
    "Certainly heavy boxes are lifted by two men.",
    "1. FC Union players run onto the pitch.",
    "3. Liga players warm up.",
    "2 dogs run along the beach.",
    "10 boats lie in the harbour.",
    "-40 is shown on a thermometer.",
    "A man reads \"War\" and then \"Peace\".",
    "\"War\" and \"Peace\" stand on the shelf.",
    "A caption reads: good night.",
    "A woman writes a description on a form.",
    "A quote: 'never again', is painted on a wall.",
    "A chef adds salt (two spoons) to the pot.",
    "Two people dance * and sing.",
    "We Will Rock You plays on stage.",
    "A woman uses C# on a laptop.",
    "Full glasses stand on a tray.",
    "A brief: lawyers hold papers.",
    "Ein Hund läuft über eine Wiese.",
    "Ich kann nicht mehr steht auf einem Plakat.",
    "一只狗在草地上奔跑。",
    "犬が芝生の上を走っている。",
    "Собака бежит по траве.",
    "A man holds a sign that says: I'm sorry, I can't help you.",
    "Someone types \"As an AI language model\" on a keyboard.",
    "None of the runners has reached the finish line.",
    "Text scrolls over a blue background.",
    "Error messages fill a computer screen.",
    "Blank pages turn in the wind.",
    "explode colorful smoke coming out",
    "zoom-in, a landscape, springtime",
    "🐕 runs on grass",
    "A screen displays the words \"content blocked\".",
    "No smoking, says a sign.",
    "Please provide your ticket, says a machine at the gate.",
    "Unable to find the ball, a dog digs in the snow.",
    "It is hard to see the deer in the forest.",
    "This is how a potter shapes a bowl.",
    "I see you, says a note on the fridge.",
    "One sees more than two, says a poster.",
    "The model refused the dress, and a tailor alters it.",
    "The video plays on a laptop.",
    "The clip art on the poster shows a clown.",
    "Error code 404 is shown on a monitor.",
    "<b> is written on a blackboard.",
    "> signs blink on a road barrier.",
    "The request was denied, says a letter.",
    "In this scene from a play, actors in masks dance.",
    "抱歉两个字写在黑板上。",
]  # fmt: skip

CLEANED = [
    ("This video shows a dog running on a beach.", "A dog running on a beach."),
    ("this video shows a dog running", "a dog running"),
    ("The video shows that a man opens a door.", "A man opens a door."),
    ("The image sequence depicts two men shaking hands.", "Two men shaking hands."),
    ("The sequence of images shows two men.", "Two men."),
    ("A series of images showing a rocket launch.", "A rocket launch."),
    ("These frames show a car on a road.", "A car on a road."),
    ("The frames depict a car.", "A car."),
    ("The short video clip features a dancer.", "A dancer."),
    ("This footage captures waves breaking.", "Waves breaking."),
    ("The scene shows a kitchen.", "A kitchen."),
    ("In this clip, we see a cat on a sofa.", "A cat on a sofa."),
    ("In this clip we can see a cat on a sofa.", "A cat on a sofa."),
    ("In the video, a cat sleeps.", "A cat sleeps."),
    ("In the image sequence, a cat sleeps.", "A cat sleeps."),
    ("Throughout the video, a man is cooking.", "A man is cooking."),
    ("We see a man who cooks.", "A man who cooks."),
    ("Here we can see a man who cooks.", "A man who cooks."),
    ("This is a video of a parade.", "A parade."),
    ("This is a short clip showing a parade.", "A parade."),
    ("Here is a caption: A dog runs.", "A dog runs."),
    ("Here is a caption:\nA dog runs.", "A dog runs."),
    ("Here is a caption:\n\nA dog runs.\n\nLet me know if you need more.", "A dog runs."),
    ("Here's a caption for the video:\n\n\"A dog runs.\"", "A dog runs."),
    ("Here is one plain visual sentence describing the clip: A dog runs.", "A dog runs."),
    ("Sure! Here is the caption you asked for: A dog runs.", "A dog runs."),
    ("Sure, here's a short description: A dog runs.", "A dog runs."),
    ("Certainly! A dog runs.", "A dog runs."),
    ("Caption: A dog runs.", "A dog runs."),
    ("Caption 1: A dog runs.", "A dog runs."),
    ("**Caption:** A dog runs.", "A dog runs."),
    ("**Caption 1:** \"A dog runs.\"", "A dog runs."),
    ("### Caption\n\nA dog runs.", "A dog runs."),
    ("Video caption: A dog runs.", "A dog runs."),
    ("Brief: A dog runs.", "A dog runs."),
    ("Description: The video shows a dog.", "A dog."),
    ("- A dog runs.", "A dog runs."),
    ("* A dog runs.", "A dog runs."),
    ("• A dog runs.", "A dog runs."),
    ("1. A dog runs.", "A dog runs."),
    ("1) A dog runs.", "A dog runs."),
    ("\"A dog runs.\"", "A dog runs."),
    ("“A dog runs.”", "A dog runs."),
    ("'A man's dog runs.'", "A man's dog runs."),
    ("«Ein Hund läuft.»", "Ein Hund läuft."),
    ("`A dog runs.`", "A dog runs."),
    ("```\nA dog runs.\n```", "A dog runs."),
    ("```text\nA dog runs.\n```", "A dog runs."),
    ("**A dog runs.**", "A dog runs."),
    ("*A dog runs.*", "A dog runs."),
    ("A **brown dog** runs.", "A brown dog runs."),
    ("A dog runs. (4 words)", "A dog runs."),
    ("A dog runs. [word count: 3]", "A dog runs."),
    ("A dog runs. Let me know if you would like more captions!", "A dog runs."),
    ("<think>The user wants a caption. I can't see…</think>\nA dog runs.", "A dog runs."),
    ("A dog runs.</s>", "A dog runs."),
    ("A dog runs.<|im_end|>", "A dog runs."),
    ("  A dog\n runs\tfast. ", "A dog runs fast."),
    ("A dog\x00 runs\ufeff.", "A dog runs."),
    ("A dog \ud83d runs.", "A dog runs."),
    ("This appears to be a video of a dog.", "A dog."),
    ("The video appears to show a dog.", "A dog."),
    ("Over the course of the clip, a dog runs.", "A dog runs."),
    ("Based on the provided frames, the video shows a dog.", "A dog."),
    ("\"Caption\": \"A dog runs.\"", "A dog runs."),
    ("A dog runs.\\n", "A dog runs."),
    ("Caption (brief): A dog runs.", "A dog runs."),
    ("The image shows: \"A dog.\"", "A dog."),
]  # fmt: skip

REFUSED = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, I can’t assist with that request.",
    "I am sorry, but I am unable to describe this video.",
    "I'm sorry, but I'm not able to provide a caption.",
    "Sorry, I can't describe people in images.",
    "Sorry, but I cannot identify real people.",
    "Sorry.",
    "I apologize, but I cannot fulfill this request.",
    "I apologise for the confusion, but I can't see the video.",
    "My apologies, but I can't do that.",
    "Unfortunately, I cannot view videos.",
    "Unfortunately, I'm unable to process this.",
    "I cannot help with that.",
    "I can't provide a description of this content.",
    "I can't see the image.",
    "I won't describe this content.",
    "I will not caption this.",
    "I am unable to generate a caption.",
    "I'm not able to identify people.",
    "I must decline to describe this.",
    "I don't feel comfortable describing this.",
    "I don't see any image attached.",
    "I do not have access to the video.",
    "I don't have the ability to watch videos.",
    "As an AI language model, I cannot watch videos.",
    "As an AI, I can't see pictures.",
    "As an AI I can't see pictures.",
    "As a large language model, I have no eyes.",
    "I'm just an AI and cannot watch this.",
    "Unable to process the video.",
    "Unable to generate a caption for this clip.",
    "Unable to determine the content.",
    "Cannot describe the image.",
    "It is not possible to determine what is happening.",
    "The request was blocked for safety reasons.",
    "Content blocked by the safety filter.",
    "This content violates our policy.",
    "The image cannot be processed.",
    "No image was provided.",
    "There is no image attached.",
    "It seems that no image was uploaded.",
    "Please provide an image to caption.",
    "Please upload the video.",
    "You haven't provided an image.",
    "I need more context to describe this.",
    "\"I'm sorry, but I can't help with that.\"",
    "Caption: I'm sorry, I can't do that.",
    "Sure! I can't describe this.",
    "In this image, I cannot identify the person.",
    "Es tut mir leid, aber ich kann dabei nicht helfen.",
    "Je suis désolé, mais je ne peux pas décrire cette image.",
    "Lo siento, pero no puedo ayudar con eso.",
    "很抱歉，我无法描述这张图片。",
    "申し訳ありませんが、お手伝いできません。",
    "I'm afraid I can't do that.",
    "As a text-based AI, I can't view images.",
    "My guidelines do not allow me to describe this.",
    "[REFUSED]",
    "I need to see the frames in order to describe them.",
    "Without the images, I cannot describe the clip.",
    "Sorry, something went wrong.",
    "The model declined to answer.",
    "I do not see any images in our conversation. Could you please upload them?",
    "Unable to provide a description due to the lack of visual information.",
]  # fmt: skip

NOTHING = [
    "",
    "   ",
    "\n",
    "...",
    "?",
    "123",
    "🐕",
    "\"\"",
    "```\n```",
    "N/A",
    "None.",
    "null",
    "string",
    "Caption:",
    "caption",
    "Your caption here",
    "No discernible content.",
    "There is no discernible content in the frames.",
    "No visible content",
    "No caption available.",
    "Nothing is visible.",
    "Nothing to describe.",
    "The content is unclear.",
    "Content not available",
    "Image not found",
    "The images are not visible to me.",
    "Unknown content",
    "This video shows",
    "This video shows.",
    "In this clip, we see",
    "<think>I should look at the picture and",
]  # fmt: skip


@pytest.mark.parametrize("caption", UNTOUCHED)
def test_a_caption_that_only_looks_like_talk_is_left_as_it_is(caption: str) -> None:
    found = judged([caption], 1, CLIP)
    assert (found.captions, found.reason) == ((caption,), "")


def test_captions_of_people_are_left_as_they_are(shared: Path) -> None:
    with (shared / "realvideo" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file) if row["caption"]]
    assert len(captions) == 60
    for caption in captions:
        assert judged([caption], 1, VICLIP).captions == (caption,)
        assert cut([caption], VICLIP) == ((caption,), (False,))


@pytest.mark.parametrize(("answer", "caption"), CLEANED)
def test_what_is_around_a_caption_goes(answer: str, caption: str) -> None:
    assert judged([answer], 1, CLIP).captions == (caption,)
    assert cleaned(cleaned(answer)) == cleaned(answer)


@pytest.mark.parametrize("answer", REFUSED)
def test_a_refusal_is_a_reason(answer: str) -> None:
    found = judged([answer], 1, VICLIP)
    assert (found.reason, found.captions, found.too_long) == ("refused", (), False)
    assert "declined" in found.detail


@pytest.mark.parametrize("answer", NOTHING)
def test_an_answer_that_says_nothing_is_a_reason(answer: str) -> None:
    assert judged([answer], 1, VICLIP).reason == "no_caption"


def test_too_few_captions_are_a_bad_answer_and_more_are_left_out() -> None:
    assert judged([], 1, VICLIP).reason == "no_caption"
    assert judged(["A dog."], 2, VICLIP).reason == "bad_answer"
    assert "1 of 2" in judged(["A dog."], 2, VICLIP).detail
    assert judged(["A dog.", "A cat.", "A cow."], 2, VICLIP).captions == ("A dog.", "A cat.")


def test_numbers_of_a_list_go_where_they_are_right() -> None:
    assert judged(["1. A dog runs.", "2. A dog"], 2, VICLIP).captions == ("A dog runs.", "A dog")
    assert judged(["A dog runs.", "3. A dog"], 2, VICLIP).captions == ("A dog runs.", "3. A dog")


def test_one_refusal_among_captions_is_the_clips_reason() -> None:
    assert judged(["A dog.", "I can't help with that."], 2, VICLIP).reason == "refused"
    assert judged(["A dog.", ""], 2, VICLIP).reason == "no_caption"


def test_the_detail_of_a_reason_is_one_short_printable_line() -> None:
    detail = judged(["I can't help\x1b[31m\n" + "with that " * 100], 1, VICLIP).detail
    assert detail.isprintable()
    assert len(detail) < 220


def test_too_long_is_what_the_encoder_would_not_read() -> None:
    words = "a dog " * 15
    assert not judged([words], 1, VICLIP).too_long
    assert judged([words + "runs"], 1, VICLIP).too_long
    assert not judged([words + "runs"], 1, CLIP).too_long
    assert judged(["A dog.", words * 6], 2, CLIP).too_long


LONG = [
    (
        "A man in a red jacket rides a brown horse along a wide sandy beach, while two small dogs run behind him and "
        "a crowd of people on the pier waves at them",
        "A man in a red jacket rides a brown horse along a wide sandy beach, while two small dogs run behind him",
    ),
    (
        "Two chefs in white uniforms prepare a large pot of vegetable soup in a busy restaurant kitchen with steam "
        "rising and a waiter standing near the door holding three white plates of food",
        "Two chefs in white uniforms prepare a large pot of vegetable soup in a busy restaurant kitchen with steam "
        "rising",
    ),
    (
        "A dog runs over a meadow towards a lake and jumps into the water. Its owner throws a stick. The dog swims to "
        "the stick and brings it back to the shore.",
        "A dog runs over a meadow towards a lake and jumps into the water. Its owner throws a stick",
    ),
    (
        "Dog. " + "A tall old wooden windmill turning slowly " * 5,
        "Dog. A tall old wooden windmill turning slowly A tall old wooden windmill turning slowly A tall old wooden "
        "windmill turning slowly A tall old wooden windmill turning slowly",
    ),
]


@pytest.mark.parametrize(("text", "kept"), LONG)
def test_a_long_caption_is_cut_at_a_clause_else_at_a_word(text: str, kept: str) -> None:
    assert cut([text], VICLIP) == ((kept,), (True,))


def test_only_what_is_too_long_is_cut_and_said_to_be() -> None:
    texts, was_cut = cut(["A dog.", LONG[0][0]], VICLIP)
    assert texts[0] == "A dog."
    assert was_cut == (False, True)
    assert cut([LONG[0][0]], CLIP) == ((LONG[0][0],), (False,))


@pytest.mark.parametrize(
    "text",
    [
        "一只棕色的狗在绿色的草地上奔跑，追逐一个红色的球，而它的主人站在远处的一棵大树下面看着它，并且挥手。" * 3,
        "茶色の犬が緑の芝生の上を走り、赤いボールを追いかけている。飼い主は遠くの大きな木の下に立って見ている。" * 3,
        "สุนัขสีน้ำตาลวิ่งบนสนามหญ้าสีเขียวไล่ตามลูกบอลสีแดงขณะที่เจ้าของยืนมองอยู่ใต้ต้นไม้ใหญ่" * 3,
        "https://example.com/" + "abcdefghij" * 40,
        "👩‍👩‍👧‍👦👍🏽" * 40,
        "e\u0301" * 200,
    ],
)
def test_texts_without_spaces_are_cut_to_fit(text: str) -> None:
    for limit in (VICLIP, CLIP):
        ((kept,), (was_cut,)) = cut([text], limit)
        assert was_cut
        assert text.startswith(kept)
        assert limit.fits(kept)
        assert limit.count(kept) > limit.room // 3
        assert not kept.endswith("\u200d")


def test_a_folders_own_tokenizer_decides(tmp_path: Path) -> None:
    limit = limit_of(str(small_models.write_siglip(tmp_path / "siglip")))
    assert cut(["a red cat jumps, a red dog jumps"], limit) == (("a red cat jumps",), (True,))


def test_no_open_bracket_or_quote_is_left() -> None:
    text = 'A man in a long grey coat holds up a large cardboard sign that says "no more wars (ever again)" in the rain'
    for room in range(8, 24):
        ((kept,), _) = cut([text], TextLimit(room + 2))
        if len(kept.split()) > 4 and TextLimit(room + 2).count(kept) >= room / 2:
            assert kept.count('"') % 2 == 0 or room < 14
            assert kept.count("(") == kept.count(")")


_SOUP = """a man woman dog cat runs jumps sleeps in on under with and while the red old park house tree bicycle, street.
water; (twice) "stop" 10,000 It's well-known — extraordinarily"""
WORDS = st.sampled_from(_SOUP.split())
TEXTS = st.lists(WORDS, max_size=80).map(" ".join) | st.text(max_size=300)
ROOMS = st.integers(min_value=6, max_value=80)


@given(TEXTS, ROOMS)
@example("ﷺ" * 30, 7)
@example("a " * 60, 10)
@example("the the the the the the the the", 6)
def test_what_is_cut_fits_is_a_beginning_and_stays(text: str, context: int) -> None:
    limit = TextLimit(context)
    ((kept,), (was_cut,)) = cut([text], limit)
    assert limit.fits(kept)
    assert was_cut == (not limit.fits(text))
    assert (text if not was_cut else text.strip()).startswith(kept)
    assert cut([kept], limit) == ((kept,), (False,))


@given(st.lists(WORDS, min_size=1, max_size=80), st.integers(min_value=20, max_value=80))
def test_no_word_is_cut_in_two_and_none_dangles(words: list[str], context: int) -> None:
    limit = TextLimit(context)
    ((kept,), (was_cut,)) = cut([" ".join(words)], limit)
    if was_cut and kept:
        bare = [word.strip('.,;:"—()') for word in words]
        found = [word.strip('.,;:"—()') for word in kept.split()]
        assert found == bare[: len(found)]
        assert not DANGLING.fullmatch(found[-1]) or all(map(DANGLING.fullmatch, found))
        assert kept[-1] not in ".,;:-—"


@given(TEXTS | st.sampled_from([answer for answer, _ in CLEANED] + REFUSED + UNTOUCHED), st.integers(1, 3))
def test_to_clean_again_changes_nothing(text: str, number: int) -> None:
    once = cleaned(text, number)
    assert cleaned(once, number) == once
    assert once.encode() or not once
    assert "\n" not in once


@given(
    st.sampled_from(["A", "The", "An old", "Two", "A small red"]),
    st.sampled_from(["man", "dog", "car", "video screen", "image", "clip-on tie", "sorry clown", "picture"]),
    st.sampled_from(["runs", "stands on a stage", "cannot move", "shows a card", "says sorry", "turns", "is not able"]),
    st.sampled_from(["", " in the rain", " near a video shop", ", while people watch", " and waves.", "."]),
)
def test_sentences_about_things_survive(article: str, noun: str, verb: str, rest: str) -> None:
    caption = f"{article} {noun} {verb}{rest}"
    if noun in ("image", "picture") and verb == "shows a card" and article == "The":
        return  # "The picture shows a card" is talk about the picture.
    assert judged([caption], 1, CLIP).captions == (caption,)


@given(st.sampled_from([caption for caption in UNTOUCHED if caption[0] == "A"]), st.sampled_from(CLEANED[:18]))
def test_a_head_goes_from_any_caption(caption: str, example_of: tuple[str, str]) -> None:
    answer, _ = example_of
    head = answer[: answer.lower().rindex(example_of[1].lower())]
    assert cleaned(head + caption[0].lower() + caption[1:]).lower() == cleaned(caption).lower()


def test_a_json_string_of_a_caption_is_kept() -> None:
    assert judged([json.loads('"A caf\\u00e9 at night"')], 1, CLIP).captions == ("A café at night",)


@pytest.mark.parametrize(
    "part",
    ["- ", "caption: ", "Sure! ", "__a ", "the ", "\n\n", "\n a \n", "狗", "**", '"a" ', "(1 word) ", "<think>", "a, "],
)
def test_no_answer_takes_long(part: str) -> None:
    began = time.process_time()
    judged([part * 20_000], 1, VICLIP)
    cut([part * 20_000], VICLIP)
    assert time.process_time() - began < 3
