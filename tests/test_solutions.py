"""The solution buffer: latest success, read without thinking, saved whole."""

from resd.context.solutions import SolutionBuffer


def test_the_latest_success_is_read_without_thinking() -> None:
    buffer = SolutionBuffer()
    assert buffer.get("p") is None
    buffer.put("p", "<think>a</think>first")
    buffer.put("p", "b</think> second ")
    assert buffer.get("p") == "second"
    assert len(buffer) == 1
    buffer.put("q", "no thought at all")
    assert buffer.get("q") == "no thought at all"


def test_a_response_that_is_all_thinking_is_no_solution() -> None:
    buffer = SolutionBuffer()
    buffer.put("p", "<think>cut")
    assert buffer.get("p") is None
    opened = SolutionBuffer(thinking_opened=True)
    opened.put("p", "cut")
    opened.put("q", "thought</think>answer")
    assert (opened.get("p"), opened.get("q")) == (None, "answer")


def test_a_loaded_buffer_reads_like_the_saved_one_and_is_its_own() -> None:
    saved, loaded = SolutionBuffer(), SolutionBuffer()
    saved.put("p", "a</think>one")
    loaded.put("q", "forgotten")
    loaded.load_state_dict(saved.state_dict())
    saved.put("p", "two")
    assert (loaded.get("p"), loaded.get("q")) == ("one", None)
    assert loaded.state_dict() == {"p": "a</think>one"}
