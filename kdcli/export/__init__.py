"""Files to deploy, each compared with torch before it takes its name."""
