"""`opencode-sidecar run` when things do not go on."""

import asyncio
import signal
from pathlib import Path

from tests import program
from tests.fakes.silent_sidecar import silent_sidecar
from tests.waiting import patience


async def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    """The first asks for an end; where none comes the second leaves, without cleaning up, with code 130."""
    async with silent_sidecar() as silent, patience():
        process = await program.spawn("run", "--url", silent.url, "-m", "m", "hello", home=tmp_path)
        await silent.is_running.wait()
        while "user.message" not in silent.sent:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        await silent.is_interrupted.wait()
        assert process.returncode is None
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert process.returncode == 130
    assert b"Ctrl-C again leaves at once" in err
    assert b"Traceback" not in err
    assert silent.sent == ["user.message", "user.interrupt"]
    assert not [path for method, path in silent.calls if method == "DELETE"]


async def test_a_prompt_that_is_no_text(tmp_path: Path) -> None:
    """Bytes on stdin that are not in the terminal's encoding are an error message, not a traceback."""
    process = await program.spawn(
        *("run", "--url", "http://127.0.0.1:9", "-"), home=tmp_path, stdin=asyncio.subprocess.PIPE
    )
    async with patience():
        out, err = await process.communicate(b"\xff\xfe")

    assert process.returncode == 2
    assert b"not text in utf-8" in err
    assert b"Traceback" not in err
    assert out == b""
