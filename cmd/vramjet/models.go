package main

// modelsCmd shows models and says where they are to be.
type modelsCmd struct {
	Ls     modelsLsCmd     `cmd:"" default:"withargs" help:"List the models of all nodes: where they are, and what they need."`
	Load   modelsLoadCmd   `cmd:"" help:"Load a model into memory."`
	Unload modelsUnloadCmd `cmd:"" help:"Unload a model from memory."`
	Pin    modelsPinCmd    `cmd:"" help:"Never unload a model to make room for others."`
	Unpin  modelsUnpinCmd  `cmd:"" help:"Let a model be unloaded again to make room."`

	Estimate modelsEstimateCmd `cmd:"" help:"Say how much device memory it takes to load a model."`
}
