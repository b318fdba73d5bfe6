"""A vbench whose dimensions go wrong as told by the captions, with the real one's way of writing results."""

import importlib
import json
import os


class VBench:
    """The interface of vbench 0.1.5's class."""

    def __init__(self, device: str, full_info_dir: str, output_path: str) -> None:
        self.output_path = output_path
        os.makedirs(output_path, exist_ok=True)

    def evaluate(self, videos_path, name, prompt_list, dimension_list, local, mode):
        """Measure one dimension on every file of a folder."""
        (dimension,) = dimension_list
        module = importlib.import_module("vbench." + dimension)
        paths = sorted(os.path.join(videos_path, file) for file in os.listdir(videos_path))
        print("talk of vbench's own on standard output")
        results = module.compute(paths, prompt_list)
        with open(os.path.join(self.output_path, name + "_eval_results.json"), "w") as file:
            json.dump({dimension: results}, file)
