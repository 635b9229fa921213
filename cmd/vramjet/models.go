package main

// modelsCmd looks at models.
type modelsCmd struct {
	Estimate modelsEstimateCmd `cmd:"" help:"Say how much device memory it takes to load a model."`
}
