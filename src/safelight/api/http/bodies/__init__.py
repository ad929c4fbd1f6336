"""What clients send: how much of it, in which coding, as which types; nothing with two meanings."""
