"""The layers and losses that come with weft, one subject a file."""
