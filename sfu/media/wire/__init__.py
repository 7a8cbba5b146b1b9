"""Numbers and bytes as they stand on the wire: headers, payload descriptors and header extensions. Media threads."""
