"""The elementary functions, each defined once over the abstract arithmetic, with the error bounds that tests hold."""
ELEMENTARY = {}
