"""Run by the Python of vbench's environment, not by genrun's: measures what it is asked for, one JSON object a line.

Standard library only, Python 3.8 or newer. On stdin: {"cache": folder or null} first, then one request a line:
{"dimension", "pairs", "device", "folder", "mode", "prompts", "full_info", "out"}, where "pairs" is true of dimensions that
compare clips with start images. On stdout: {"event": "hello", ...} first, then for each request {"event": "video", "path"}
as each is begun, and at last {"event": "result", "average", "videos"} or {"event": "error", "kind", "message"}. What vbench
itself prints goes to stderr.
"""

import functools
import importlib
import importlib.util
import json
import os
import sys
import traceback

UNDECLARED = ("nms", "qnms")
DECLARATIONS = []
ORIGINALS = {}


def main():
    """Answer requests until stdin ends."""
    # The folder of this script is no place to import from.
    sys.path.pop(0)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    told = json.loads(sys.stdin.readline())
    if told.get("cache"):
        os.environ["VBENCH_CACHE_DIR"] = told["cache"]

    def say(event, **fields):
        answers.write(json.dumps(dict(fields, event=event)) + "\n")
        answers.flush()

    try:
        say("hello", **about(told))
    except BaseException as error:
        traceback.print_exc()
        say("error", kind=type(error).__name__, message=str(error))
        return
    for line in sys.stdin:
        try:
            say("result", **measured(json.loads(line), say))
        except BaseException as error:
            traceback.print_exc()
            say("error", kind=type(error).__name__, message=str(error))


def about(told):
    """Describe this environment."""
    if importlib.util.find_spec("vbench") is None:
        raise ModuleNotFoundError("No module named 'vbench'")
    declare_operators()
    utils = importlib.import_module("vbench.utils")
    folder = os.path.dirname(os.path.abspath(importlib.import_module("vbench").__file__ or ""))
    import torch

    return {
        "version": version(),
        "torch": torch.__version__,
        "cuda": torch.cuda.is_available(),
        "cache": utils.CACHE_DIR,
        "full_info": os.path.join(folder, "VBench_full_info.json"),
        "modules": [name for name in told.get("modules", ()) if importlib.util.find_spec(name)],
        "hub": [name for name in told.get("hub", ()) if in_hub_cache(name)],
    }


def version():
    """Return the version of vbench, or ""."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    try:
        return version_of("vbench")
    except PackageNotFoundError:
        return ""


def in_hub_cache(name):
    """Return whether a checkpoint of the hub is on this machine."""
    try:
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ImportError:
        return False


def declare_operators():
    """Let torchvision be imported where its own operators cannot be loaded: a build for CUDA beside a torch for CPUs.

    Importing it asks for the operators' declarations only. A dimension that calls one of them fails, and says so.
    """
    import torch

    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        # Declarations last as long as the object that made them.
        DECLARATIONS.append(library)
        for name in UNDECLARED:
            library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")


def measured(request, say):
    """Measure one dimension on the videos of a folder."""
    import torch

    dimension, device = request["dimension"], torch.device(request["device"])
    package, kind = ("vbench2_beta_i2v", "VBenchI2V") if request["pairs"] else ("vbench", "VBench")
    module = importlib.import_module(package + "." + dimension)
    vars(module)["tqdm"] = telling(say)
    use_files_of_the_cache(module, device)
    bench = getattr(importlib.import_module(package), kind)(device, request["full_info"], request["out"])
    # With pairs the list of prompts says all: VBenchI2V takes no others.
    own = {} if request["pairs"] else {"prompt_list": request["prompts"], "mode": request["mode"]}
    bench.evaluate(videos_path=request["folder"], name="genrun", dimension_list=[dimension], local=True, **own)
    with open(os.path.join(request["out"], "genrun_eval_results.json"), encoding="utf-8") as file:
        average, videos = json.load(file)[dimension]
    results = [[video["video_path"], number(video["video_results"])] for video in videos]
    return {"average": number(average), "videos": results}


def use_files_of_the_cache(module, device):
    """Have DINO and DreamSim read their weights from vbench's cache folder, where the other dimensions have theirs.

    vbench leaves DINO's to torch's own cache, and DreamSim's to a folder "models" where it is started, on a GPU.
    """
    import torch

    cache = importlib.import_module("vbench.utils").CACHE_DIR
    real = ORIGINALS.setdefault("load", torch.hub.load_state_dict_from_url)

    def load(url, *args, **kwargs):
        path = os.path.join(cache, "dino_model", url.rpartition("/")[2])
        if os.path.isfile(path):
            return torch.load(path, map_location="cpu", weights_only=True)
        return real(url, *args, **kwargs)

    torch.hub.load_state_dict_from_url = load
    if "dreamsim" in vars(module):
        model = ORIGINALS.setdefault("dreamsim", vars(module)["dreamsim"])
        folder = os.path.join(cache, "dreamsim_model")
        vars(module)["dreamsim"] = functools.partial(model, device=str(device), cache_dir=folder)


def telling(say):
    """Return a stand-in for tqdm that goes through the same things, and says which video is next."""

    def through(things, *_args, **_kwargs):
        for thing in things:
            # A prompt's clips, a start image and its clip, or a clip.
            paths = thing.get("video_list", []) if isinstance(thing, dict) else [thing]
            if isinstance(thing, tuple):
                paths = thing[1:]
            for path in paths[:1]:
                say("video", path=str(path))
            yield thing

    return through


def number(value):
    """Return a number as JSON has it; null for what is none, and "nan" as text, since JSON has no such number."""
    if isinstance(value, (bool, int, float)):
        value = float(value)
        return value if value - value == 0 else str(value)
    return None


if __name__ == "__main__":
    main()
