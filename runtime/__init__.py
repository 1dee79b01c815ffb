"""Plans, memory, native code and threads: what runs a compiled program."""
