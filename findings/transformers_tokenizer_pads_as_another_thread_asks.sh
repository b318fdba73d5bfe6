#!/usr/bin/env bash
# A fast tokenizer of transformers 5.23.0 that two threads share pads a prompt as the other thread asked for.
#
# Packages: transformers==5.23.0 tokenizers==0.23.3 (Python 3.11).
# How to pad and to cut is set on the tokenizer by one call before it encodes by another, so that a thread may come between.
# Pipelines of diffusers ask in both ways for each prompt: to the full length for the text encoder, and as long as it is to
# see whether anything was cut. Two pipelines with one tokenizer, in a thread each, so get embeddings of another length now
# and then: in diffusers an error about sizes far from the cause, and nothing where the model takes any length. One expects
# the arguments of a call to hold for that call. It needs a lock around the calls, or a tokenizer for each thread.
#
# Output seen (some 100 of 20,000 calls):
#   padding="max_length", max_length=77: 77 tokens
#   the same beside a thread that asks for padding="longest": 10 or 77 tokens
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
import threading

from transformers import CLIPTokenizer

words = ["a</w>", "red</w>", "ball</w>", "<|startoftext|>", "<|endoftext|>"]
tokenizer = CLIPTokenizer(vocab={word: place for place, word in enumerate(words)}, merges=[], model_max_length=77)
ended = threading.Event()


def lengths() -> str:
    """How many tokens 20,000 calls return that all ask for 77."""
    calls = (tokenizer("a red ball", padding="max_length", max_length=77, truncation=True) for _ in range(20_000))
    return " or ".join(map(str, sorted({len(call.input_ids) for call in calls})))


def look_for_cut_prompts() -> None:
    while not ended.is_set():
        tokenizer("a red ball", padding="longest")


print(f'padding="max_length", max_length=77: {lengths()} tokens')
other = threading.Thread(target=look_for_cut_prompts)
other.start()
print(f'the same beside a thread that asks for padding="longest": {lengths()} tokens')
ended.set()
other.join()
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
padding="max_length", max_length=77: 77 tokens
the same beside a thread that asks for padding="longest": 10 or 77 tokens
SEEN
