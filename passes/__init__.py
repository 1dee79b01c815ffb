"""Graph to graph: differentiation, simplification, and the pipeline that orders the passes. Nothing here knows about kernels."""
