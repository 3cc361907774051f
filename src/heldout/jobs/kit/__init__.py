"""What several jobs share: trainings, parts, searches, the dry run; it knows no job."""
