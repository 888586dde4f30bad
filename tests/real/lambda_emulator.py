"""A built function in Lambda's Runtime Interface Emulator, with the layer and the Python that it has in Lambda.

The emulator is part of the AWS SAM CLI (`make build` installs it). What Lambda does around a function is done here as
far as the emulator leaves it out: the layers lie where `PYTHONPATH` says instead of below /opt, and the Web Adapter,
which is an extension there, is started beside the function.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sysconfig
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import yaml

from local.child import ROOT
from tests.test_template import Loader

BUILT: Final = ROOT / ".aws-sam" / "build"

LAYER: Final = BUILT / "TailraceLayerX86" / "python"

AGENT_LAYER: Final = ROOT / ".aws-sam" / "agent" / "CodeLayer" / "python"
"""What `make build` made of examples/agent."""

ADAPTER: Final = ROOT / ".tools" / "web-adapter" / "bin" / "lambda-adapter"

CLIENT: Final = ROOT / ".tools" / "ric"

RESOURCES: Final = {
    "stream": "StreamFunction",
    "api": "ApiFunction",
    "websocket": "WebSocketFunction",
    "chat": "ChatFunction",
    "broadcast": "BroadcastFunction",
    "sweep": "SweepFunction",
}
"""The functions, and what they are called in the template. One whose handler is a script is run by the Web Adapter."""

ITS_NAME: Final = "function"
"""The one by which the emulator lets its function be invoked."""

Json = dict[str, Any]


@cache
def built_template() -> Json:
    """Return what `sam deploy` would send."""
    template: Json = yaml.load((BUILT / "template.yaml").read_text(), Loader)
    return template


@cache
def python() -> Path:
    """Return the Python that Lambda runs."""
    found = subprocess.run(
        [ROOT / "layers" / "tailrace" / "find-python", "3.13"], capture_output=True, text=True, check=True
    )
    return Path(found.stdout.strip())


def emulator() -> Path:
    """Return the emulator's binary."""
    packages = sysconfig.get_path("purelib", vars={"base": str(ROOT / ".tools" / "sam")})
    return Path(packages) / "samcli" / "local" / "rapid" / "aws-lambda-rie-x86_64"


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EmulatedFunction:
    """A running function.

    Attributes:
        pid: of the emulator, whose children are the function.
        endpoint: for ``AWS_ENDPOINT_URL_LAMBDA``: there it is ``ITS_NAME``, and one call is answered after the other.
    """

    def __init__(self, process: asyncio.subprocess.Process, endpoint: str, log: Path) -> None:
        self.pid = process.pid
        self.endpoint = endpoint
        self._url = f"{endpoint}/2015-03-31/functions/{ITS_NAME}/invocations"
        self._log = log

    @classmethod
    @asynccontextmanager
    async def run(
        cls,
        name: str,
        folder: Path,
        environment: Mapping[str, str],
        *,
        timeout: int = 60,
        runtime_port: int | None = None,
        seen_through: str | None = None,
        code_layer: Path | None = None,
        code: Path | None = None,
    ) -> AsyncIterator[Self]:
        """Run a function until the end of the context.

        Args:
            folder: an empty one.
            environment: beside what the template gives it.
            timeout: seconds that a call may take.
            runtime_port: where the emulator's Runtime API shall listen.
            seen_through: another address of it, that the function shall use.
            code_layer: a layer that lies over Tailrace's own.
            code: a folder with other code in the place of the function's own.
        """
        port, runtime_port = free_port(), runtime_port or free_port()
        properties = built_template()["Resources"][RESOURCES[name]]["Properties"]
        handler: str = properties["Handler"]
        task_root = (BUILT / properties["CodeUri"]).resolve() if code is None else code
        (folder / "python3").symlink_to(python())
        variables: dict[str, str] = {
            **_variables(properties),
            "AWS_LWA_PORT": str(free_port()),
            "LAMBDA_TASK_ROOT": str(task_root),
            "_HANDLER": handler,
            "PATH": f"{folder}:/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",  # boto3 reads this one, and Lambda sets both
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout),
            "POWERTOOLS_SERVICE_NAME": "tailrace",
            "POWERTOOLS_METRICS_NAMESPACE": "Tailrace",
            **environment,
        }
        layers = str(LAYER) if code_layer is None else f"{code_layer}:{LAYER}"
        if handler.endswith(".sh"):
            variables |= {"PYTHONPATH": layers, "ADAPTER": str(ADAPTER)}
            if seen_through is not None:
                variables["AWS_LWA_LAMBDA_RUNTIME_API_PROXY"] = seen_through
            bootstrap = folder / "bootstrap"
            # The second line is all that the adapter's own /opt/bootstrap has.
            bootstrap.write_text('#!/bin/bash\n"$ADAPTER" &\nexec -- "$LAMBDA_TASK_ROOT/$_HANDLER"\n')
            bootstrap.chmod(0o755)
            command = [str(bootstrap)]
        else:
            variables["PYTHONPATH"] = f"{task_root}:{layers}:{CLIENT}"
            command = [str(folder / "python3"), "-s", "-m", "awslambdaric", handler]
            if seen_through is not None:
                command = ["/usr/bin/env", f"AWS_LAMBDA_RUNTIME_API={seen_through}", *command]
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(str(emulator()), "--log-level", "error"),
                *("--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
                *("--runtime-api-address", f"127.0.0.1:{runtime_port}"),
                *command,
                cwd=task_root,
                env=variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            await _listens(port, process, folder / "log")
            yield cls(process, f"http://127.0.0.1:{port}", folder / "log")
        finally:
            for pid in [*descendants(process.pid), process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await process.wait()

    async def call(self, event: object) -> bytes:
        """Return the whole of what a call gives."""
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(self._url, json=event) as response:
            return await response.read()

    async def request(self, event: object) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of a call that is a request, answered whole or streamed."""
        answer = await self.call(event)
        head, streamed, body = answer.partition(b"\x00" * 8)
        parsed = json.loads(head)
        assert "statusCode" in parsed, (answer, self._log.read_text())
        return parsed["statusCode"], parsed["headers"], body if streamed else parsed["body"].encode()


def _variables(properties: Json) -> dict[str, str]:
    """Return the variables that the template gives a function. What another resource is called stands for it; what
    takes more of CloudFormation than that, a test has to give."""
    given = properties.get("Environment", {}).get("Variables", {})
    plain = {name: value.get("Ref") if isinstance(value, dict) else value for name, value in given.items()}
    return {name: value for name, value in plain.items() if isinstance(value, str)}


async def _listens(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(30):
        while True:
            assert process.returncode is None, f"the emulator ended: {log}"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)  # it says nothing once it listens
            else:
                writer.close()
                await writer.wait_closed()
                return


def descendants(pid: int) -> list[int]:
    """Return the children of a process, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def main() -> None:
    """Say what is missing of what was to be built before."""
    if not LAYER.exists():
        raise SystemExit("There is no built layer: make build first.")
    source = ROOT / "layers" / "tailrace" / "tailrace"
    for path in source.rglob("*.py"):
        built = LAYER / "tailrace" / path.relative_to(source)
        if not built.exists() or built.read_bytes() != path.read_bytes():
            raise SystemExit(f"{path.relative_to(ROOT)} has changed since the layer was built: make build first.")


if __name__ == "__main__":
    main()
