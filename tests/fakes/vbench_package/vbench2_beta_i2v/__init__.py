"""The image-to-video suite, with the real one's way of pairing clips with start images."""

import importlib
import json
import os

from vbench import VBench


class VBenchI2V(VBench):
    """The interface of vbench 0.1.5's class."""

    def __init__(self, device, full_info_dir, output_path):
        super().__init__(device, full_info_dir, output_path)
        self.full_info_dir = full_info_dir

    def evaluate(self, videos_path, name, prompt_list=(), dimension_list=(), local=False, mode="", resolution="1-1"):
        """Measure one dimension on the pairs of a list."""
        (dimension,) = dimension_list
        module = importlib.import_module("vbench2_beta_i2v." + dimension)
        with open(self.full_info_dir) as file:
            entries = json.load(file)
        suffix = os.path.splitext(os.listdir(videos_path)[0])[1]
        root = "vbench2_beta_i2v/data/crop/" + resolution
        pairs = [
            (os.path.join(root, entry["image_name"]), os.path.join(videos_path, entry["prompt_en"] + "-0" + suffix))
            for entry in entries
        ]
        with open(os.path.join(self.output_path, name + "_eval_results.json"), "w") as file:
            json.dump({dimension: module.compute(pairs)}, file)
