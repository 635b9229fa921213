// Package providertest is the contract of providers.Provider, as tests that every
// kind of server passes, and the table of what was proven by what.
//
// A kind is tested against servers of the test's own: one that speaks the kind's
// shapes as its vendor documents them, and one that breaks every rule in turn.
// Both are HTTP servers over connections in memory (but see Kind.Serve), in a bubble of
// testing/synctest: there no time passes while they wait, every goroutine must
// have ended when a test does, and a limit of 50 ms means 50 ms.
package providertest
