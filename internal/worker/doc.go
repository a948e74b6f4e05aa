// Package worker is the JavaScript worker.
package worker
