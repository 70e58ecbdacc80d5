"""Videos in: sources, decoding, frame sampling, augmentation, pipelines. Never imports JAX itself.

    sources.open_source(config.data, "train")       -> Source: records in a fixed order
    pipeline.train_dataset(source, spec, ...)       -> batches, a pure function of (seed, step, row)
    pipeline.iterate(dataset, start=step, workers=) -> the batches from a step on, read ahead
"""

from vfe.data.record import Source, VideoRecord

__all__ = ["Source", "VideoRecord"]
