"""Graph to graph: differentiation, optimization, and the pipeline that orders it. Nothing here knows about kernels."""
