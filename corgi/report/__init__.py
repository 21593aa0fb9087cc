"""report.html: one offline page about a run, made from its committed tables."""
