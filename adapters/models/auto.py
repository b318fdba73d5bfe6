"""Any diffusers pipeline folder or hub id: everything is read off the loaded pipeline."""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="auto",
    title="any diffusers text-to-video or text-to-image pipeline, by folder or hub id",
    defaults={"steps": 50},
)
