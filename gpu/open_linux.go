package gpu

import "context"

// systemOpeners returns what may tell of devices here, the best first.
func systemOpeners() []opener {
	return []opener{
		{"nvml", openNVML},
		smiOpener,
		{"jetson", func(ctx context.Context) (source, error) { return openJetson(ctx, "/") }},
		{"amdgpu", func(ctx context.Context) (source, error) { return openAMD(ctx, "/") }},
		{"intel", func(ctx context.Context) (source, error) { return openIntel(ctx, "/", "xpu-smi") }},
	}
}
