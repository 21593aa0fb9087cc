"""report.html: what a run's committed tables say, as one offline page."""
