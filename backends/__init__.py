"""Backends: fused graphs to loop IR to machine code."""
