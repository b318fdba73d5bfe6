"""What `genrun submit` says of checkpoints that only loading tells to be bad: a gated one, and one of two models' files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from genrun.runner.store.folder import RunFolder
from tests.tiny.checkpoints import save

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
MAIN = "from genrun.runner.cli import main; main(prog_name='genrun')"
GATED = "org/gated"


class Gate(BaseHTTPRequestHandler):
    """A hub all of whose models are gated: answers as huggingface.co does without a token."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to model org/gated is restricted. You must be authenticated.")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def mismatched(folder: Path) -> Path:
    """A checkpoint one tensor of which has another shape than its configuration says."""
    path = next((folder / "transformer").glob("*.safetensors"))
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if name.endswith("weight") and tensors[name].ndim == 2)
    save_file({**tensors, name: torch.cat([tensors[name], tensors[name]]).contiguous()}, path, {"format": "pt"})
    return folder


def test_each_item_says_what_is_wrong_and_what_to_do(tmp_path: Path, endpoint: str) -> None:
    wrong = mismatched(save("sd3", tmp_path / "weights"))
    job = {
        "name": "bad",
        "model": {"checkpoint": GATED},
        "prompts": ["a"],
        "sampling": {"steps": 1, "height": 32, "width": 32},
        "matrix": {"model.checkpoint": [GATED, str(wrong)]},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    hidden = {"HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HTTP_PROXY", "http_proxy"}
    environ = {key: value for key, value in os.environ.items() if key not in hidden}
    environ |= {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-c", MAIN, "submit", "job.yaml", "--json"]
    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 1, ran.stderr
    gated = f"{GATED}: is gated: its owners ask for your agreement"
    shape = f"{wrong}: the weights have another shape than the configuration says"
    agree = f"Agree on https://huggingface.co/{GATED}, then log in with `hf auth login` (or set HF_TOKEN)"
    both = "The weights and the config.json beside them are of two models: get both from one place."
    folder = RunFolder.open(Path(json.loads(ran.stdout)["run"]))
    errors = {item.model["checkpoint"]: folder.records()[item.id].error or {} for item in folder.items()}
    assert (errors[GATED]["kind"], errors[GATED]["message"]) == ("load", gated)
    assert errors[GATED]["remedy"].startswith(agree)
    assert errors[str(wrong)]["message"].startswith(shape) and errors[str(wrong)]["remedy"] == both
    for text in (gated, agree, shape, both):
        assert text in " ".join(ran.stderr.split()), ran.stderr
