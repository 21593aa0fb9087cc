"""From a list of URLs to curated pictures: plan, download, curate."""
