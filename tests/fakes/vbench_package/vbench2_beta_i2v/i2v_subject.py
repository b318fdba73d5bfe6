"""Gives the size of the start image and of the clip's file, as one number, to show that both are there."""

import os
import struct


def tqdm(things, **_options):
    """Replaced by the bridge."""
    return things


def compute(pairs):
    """An average and a list of results, as vbench's dimensions give them."""
    videos = []
    for image, video in tqdm(pairs):
        with open(image, "rb") as file:
            width, height, depth, colour = struct.unpack(">IIBB", file.read(26)[16:])
        assert (depth, colour) == (8, 2), "wanted a PNG of RGB"
        assert os.path.isfile(video)
        videos.append({"image_path": image, "video_path": video, "video_results": width / height})
    return [sum(video["video_results"] for video in videos) / len(videos), videos]
