"""One trial: batches on the device, the DeepSpeed engine, the loop, checkpoints. Needs no Ray."""
