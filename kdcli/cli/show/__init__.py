"""What a person sees: words, tables, bars and pages. No command is here."""
