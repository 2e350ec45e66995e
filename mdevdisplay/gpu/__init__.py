"""Reading dma-bufs through a GPU: see `mdevdisplay.gpu.importer`. Needs libEGL.so.1 and nothing of Python's."""
