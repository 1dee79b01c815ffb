"""The intermediate representation: types, op declarations, graphs, text, verifier, interpreter, loop IR and plan."""
