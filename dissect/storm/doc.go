// Package storm judges: from attempts and intents to time lines, totals, and
// findings with their evidence.
//
// State is a monoid. Every partition of an analysis fills one (it is a
// dissect.Visitor), Merge joins them in any order, and Report judges the whole
// once, after the last merge; nothing is decided on parts.
package storm
