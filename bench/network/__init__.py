"""What real clients see and hear behind a link that is too narrow, long or lossy: bottleneck, clients and judgement."""
