"""Which lookup keys the site asks for, found without asking: in what its gates declare, its templates and its code."""
