"""The language that scripts the demo gateway."""

import pytest

from sidecar.demo_gateway import script
from sidecar.demo_gateway.conversation import read
from sidecar.demo_gateway.reply import Text, ToolCall, compose
from sidecar.demo_gateway.script import Call, Chunks, Fail, Mark, Say, ScriptError, Think


def bash(command: str) -> Call:
    return Call("bash", script.bash_arguments(command))


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("[[say: hello there]]", [(Say("hello there"),)]),
        ("read this: [[say: hi]] please", [(Say("hi"),)]),
        (
            "[[think: hm]][[say: Listing.]][[bash: ls]]",
            [(Think("hm"), Say("Listing."), bash("ls"))],
        ),
        ("[[bash: ls]][[then]][[say: done]]", [(bash("ls"),), (Say("done"),)]),
        ("[[repeat: ha 5]]", [(Chunks(("ha",) * 5),)]),
        ("[[slow: 2x0.5 tick]]", [(Chunks(("tick1 ", "tick2 "), 0.5),)]),
        ("[[slow: 1x0]]", [(Chunks(("chunk1 ",), 0.0),)]),
        ("[[error: 429]]", [(Fail(429),)]),
        ("[[error: 500 x2]][[say: ok]]", [(Fail(500, 2), Say("ok"))]),
        ("[[error: 400 x2 no room]]", [(Fail(400, 2, "no room"),)]),
        ("[[error: 400 no room]]", [(Fail(400, None, "no room"),)]),
        ("[[hang]]", [(Mark("hang"),)]),
        ("[[bash: [[ -f x ]] && cat x]]", [(bash("[[ -f x ]] && cat x"),)]),
        ('[[tool: grep {"a": [[1], [2]]}]]', [(Call("grep", {"a": [[1], [2]]}),)]),
        ("[[tool: todoread]]", [(Call("todoread", {}),)]),
        ('[[tools: a {"x": 1} ;; b {}]]', [(Call("a", {"x": 1}), Call("b", {}))]),
        ("please run\n$ ls -la /tmp", [(bash("ls -la /tmp"),)]),
        ("[[unknown: x]] [[say: y]]", [(Say("y"),)]),
        ("plain words, a [[link]] and $5", None),
        ("[[say: never closed", None),
    ],
)
def test_parse(text: str, steps: list[script.Step] | None) -> None:
    """A user message becomes steps of actions; text without directives stays plain."""
    assert steps == script.parse(text)


@pytest.mark.parametrize(
    "text",
    ["[[error: soon]]", "[[error: 200]]", "[[repeat: ha]]", "[[tool: x {no}]]", "[[slow: x]]"],
)
def test_parse_refuses_broken_directives(text: str) -> None:
    """A directive that cannot be read is an error that names it, not a silent no-op."""
    with pytest.raises(ScriptError):
        script.parse(text)


TOOLS = [{"type": "function", "function": {"name": "bash"}}, {"name": "platform_search"}]


def openai(*messages: dict[str, object]) -> dict[str, object]:
    return {"model": "m", "stream": True, "tools": TOOLS, "messages": list(messages)}


def user(text: str) -> dict[str, object]:
    return {"role": "user", "content": text}


def tool_round(result: str) -> list[dict[str, object]]:
    call = {"id": "c", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": result},
    ]


def text_of(body: dict[str, object]) -> str:
    reply = compose(read(body, session_id=""))
    return "".join(piece.text for piece in reply.pieces if isinstance(piece, Text))


def test_tool_results_move_the_script_on() -> None:
    """Each finished round of tool calls since the last prompt takes the next step."""
    prompt = user("[[bash: ls]][[then]][[bash: pwd]][[then]][[say: all done]]")
    first = compose(read(openai(prompt), session_id=""))
    second = compose(read(openai(prompt, *tool_round("a")), session_id=""))
    assert [p.arguments for p in first.pieces if isinstance(p, ToolCall)] != [
        p.arguments for p in second.pieces if isinstance(p, ToolCall)
    ]
    assert text_of(openai(prompt, *tool_round("a"), *tool_round("b"))) == "all done"


def test_result_is_quoted_when_the_script_has_ended() -> None:
    """After the last scripted step the answer quotes the tool's result."""
    assert text_of(openai(user("$ ls"), *tool_round("README.md\n"))) == (
        "The tool answered:\nREADME.md"
    )


def test_a_new_prompt_starts_over() -> None:
    """Tool results of an earlier turn do not count for the present one."""
    body = openai(
        user("$ ls"), *tool_round("x"), {"role": "assistant", "content": "."}, user("[[say: 2]]")
    )
    assert text_of(body) == "2"


def test_anthropic_blocks_are_read_in_order() -> None:
    """Anthropic's merged user message (tool result, then a new prompt) is a new prompt."""
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "r"}]}
    history = [
        user("$ ls"),
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "bash"}]},
    ]
    prompt = {"type": "text", "text": "[[say: fresh]]"}
    assert text_of(openai(*history, {"role": "user", "content": [result]})) == (
        "The tool answered:\nr"
    )
    assert text_of(openai(*history, {"role": "user", "content": [result, prompt]})) == "fresh"


def test_aborted_prompt_does_not_haunt_the_next() -> None:
    """Of several text blocks in one message the last with directives counts."""
    blocks = [{"type": "text", "text": "[[hang]]"}, {"type": "text", "text": "[[say: alive]]"}]
    assert text_of(openai({"role": "user", "content": blocks})) == "alive"


def test_tools_are_found_by_suffix_and_missing_ones_are_said() -> None:
    """`search` finds the MCP tool `platform_search`; a tool that is not offered becomes text."""
    reply = compose(read(openai(user("[[tool: search {}]]")), session_id=""))
    assert [p.name for p in reply.pieces if isinstance(p, ToolCall)] == ["platform_search"]
    assert "No tool named nothing" in text_of(openai(user("[[tool: nothing {}]]")))


def test_title_requests_ignore_the_script() -> None:
    """opencode's title request repeats the user's text; it must neither fail nor call tools."""
    body = openai(user("Generate a title for this conversation:\n"), user("[[error: 500]]"))
    del body["tools"]
    reply = compose(read(body, session_id=""))
    assert reply.failure is None
    assert text_of(body) == "Demo conversation"


def test_plain_text_gets_a_friendly_answer_that_names_the_model() -> None:
    """Without a script the answer is deterministic and names the model."""
    assert "You asked m: 'hello'" in text_of(openai(user("hello")))


def test_a_call_is_repeated_when_the_prompt_says_so() -> None:
    """Of the last calls those are made again that a line asks for; after their results the answer is text."""
    calls = [
        {"id": f"c{n}", "function": {"name": "bash", "arguments": f'{{"command": "{command}"}}'}}
        for n, command in enumerate(("rm x", "ls"))
    ]
    results = [{"role": "tool", "tool_call_id": f"c{n}", "content": "cut"} for n in range(2)]
    prompt = user(
        '- bash({"command": "rm x"}) was not run.\n- bash({"command": "ls"}): call it again.'
    )
    history = [user("[[bash: ls]]"), {"role": "assistant", "tool_calls": calls}, *results, prompt]
    reply = compose(read(openai(*history), session_id=""))
    assert [p.arguments for p in reply.pieces if isinstance(p, ToolCall)] == ['{"command": "ls"}']
    assert text_of(openai(*history, *tool_round("README"))) == "The tool answered:\nREADME"
