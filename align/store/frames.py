"""How pandas keeps the texts of results."""


def keep_any_text() -> None:
    """Have pandas keep text as Python's strings in this process; call it where frames of results are made.

    With pyarrow at hand it would take that library's, which hold no lone surrogates, and prompts may.
    """
    import pandas

    pandas.set_option("mode.string_storage", "python")
