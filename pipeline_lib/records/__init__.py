"""What stages leave behind: manifests of content-addressed results, and tidy Parquet records with a schema."""
