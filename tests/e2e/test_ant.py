"""Anthropic's command line `ant` 1.20.0: what it sent, recorded, is sent again and answered.

It is in no registry, so it cannot be installed here: `tests/recordings/record_ant.py` recorded it by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

from sidecar.app import RunningSidecar
from tests.harness import http_client, text_of, until_idle

RECORDED = Path(__file__).parents[1] / "recordings" / "ant" / "session.json"
KINDS = {"agents": "agent", "environments": "environment", "sessions": "session"}


async def test_what_ant_sends_is_answered(sidecar: RunningSidecar) -> None:
    """Models, an agent, an environment, a session with a turn, its events listed and streamed, a vault."""
    requests = json.loads(RECORDED.read_text())
    assert len(requests) >= 15
    ids: dict[str, str] = {}
    said = ""
    async with http_client(sidecar.url) as http:
        for request in requests:
            path, body = request["path"], request["body"]
            for name, value in ids.items():
                path, body = (text.replace("{" + name + "}", value) for text in (path, body))
            async with http.request(
                request["method"], path, data=body.encode() or None, headers=request["headers"]
            ) as response:
                if "/stream" in path:
                    said += text_of(await until_idle(response))
                    continue
                answer = await response.json()
            assert response.status == 200, (path, answer)
            kind = KINDS.get(path.partition("?")[0].removeprefix("/v1/"))
            if request["method"] == "POST" and kind is not None:
                ids[kind] = answer["id"]
    assert said
