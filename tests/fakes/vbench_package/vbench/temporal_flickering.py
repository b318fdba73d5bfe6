"""Gives 0.75 for every video, but for those whose prompt says what goes wrong."""

import os
import signal
import time


def tqdm(things, **_options):
    """Replaced by the bridge."""
    return things


def compute(paths, prompts):
    """An average and a list of results, as vbench's dimensions give them."""
    videos = []
    for path in tqdm(paths):
        told = prompts.get(os.path.basename(path), "")
        if "crash" in told:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "raise" in told:
            raise AssertionError("no frames")
        if "hang" in told:
            time.sleep(600)
        if "exit" in told:
            print("I have had enough", flush=True)
            os._exit(7)
        if "skip" not in told:
            videos.append({"video_path": path, "video_results": float("nan") if "nan" in told else 0.75})
    values = [video["video_results"] for video in videos]
    return [sum(values) / len(values) if values else float("nan"), videos]
