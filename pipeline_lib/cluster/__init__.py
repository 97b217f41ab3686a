"""What a cluster needs beyond the rules: the code that queued jobs run, and a head that sees every end of a job."""
