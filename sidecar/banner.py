"""What a newcomer sees on the terminal: the URL, the console, and three commands to copy and paste."""

from __future__ import annotations

_TEXT = """\

  opencode-sidecar serves {url}   ({gateway})
{console}
  Try it in another terminal:

  1. list the models
     curl -s {url}/v1/models{curl_key} | python3 -m json.tool | grep '"id"'

  2. run one turn with curl
     {curl_turn}

  3. run one turn with the Python SDK (pip install anthropic)
     {sdk_turn}

  Ctrl-C stops it.
"""

_CURL_TURN = """\
A=$(curl -s {url}/v1/agents{key} -d '{{"name":"demo","model":"{model}"}}' | sed 's/.*"id":"\\(agent_[^"]*\\)".*/\\1/'); \\
     E=$(curl -s {url}/v1/environments{key} -d '{{"name":"demo"}}' | sed 's/.*"id":"\\(env_[^"]*\\)".*/\\1/'); \\
     S=$(curl -s {url}/v1/sessions{key} -d '{{"agent":"'$A'","environment_id":"'$E'"}}' | sed 's/.*"id":"\\(sesn_[^"]*\\)".*/\\1/'); \\
     curl -s {url}/v1/sessions/$S/events{key} -d '{{"events":[{{"type":"user.message","content":[{{"type":"text","text":"Hello!"}}]}}]}}' >/dev/null; \\
     curl -sN --max-time 10 {url}/v1/sessions/$S/events/stream{key}"""

_SDK_TURN = """\
python3 -c '
import anthropic
client = anthropic.Anthropic(base_url="{url}", api_key="{key}")
agent = client.beta.agents.create(name="demo", model="{model}", tools=[{{"type": "agent_toolset_20260401"}}])
env = client.beta.environments.create(name="demo")
session = client.beta.sessions.create(agent=agent.id, environment_id=env.id)
with client.beta.sessions.events.stream(session.id) as stream:
    client.beta.sessions.events.send(session.id, events=[{{"type": "user.message", "content": [{{"type": "text", "text": "Hello!"}}]}}])
    for event in stream:
        print(event.type, *[block.text for block in getattr(event, "content", None) or []])
        if event.type == "session.status_idle":
            break
'"""


_DEMO = "DEMO gateway, scripted answers: set LITELLM_BASE_URL for real ones"


def text(
    *, url: str, gateway_url: str | None, model: str | None, has_key: bool, has_console: bool
) -> str:
    """Return the banner. The key is named, never printed; `gateway_url` None means the demo gateway."""
    sign_in = "   (sign in with RUNTIME_API_KEY)" if has_key else ""
    key = ' -H "x-api-key: $RUNTIME_API_KEY"' if has_key else ""
    gateway = f"gateway {gateway_url}" if gateway_url else _DEMO
    model = model or "MODEL_ID"
    return _TEXT.format(
        url=url,
        gateway=gateway,
        console=f"  Look at it in a browser: {url}/console{sign_in}\n" if has_console else "",
        curl_key=key,
        curl_turn=_CURL_TURN.format(url=url, key=key, model=model),
        sdk_turn=_SDK_TURN.format(
            url=url, key="YOUR_RUNTIME_API_KEY" if has_key else "none", model=model
        ),
    )
