package gpu

import "context"

// systemOpeners returns what may tell of devices here.
func systemOpeners() []opener {
	return []opener{
		{"metal", func(ctx context.Context) (source, error) { return openApple(ctx, "sysctl", "vm_stat") }},
	}
}
