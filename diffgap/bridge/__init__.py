"""The method, in torch and nothing of ours: schedules, denoiser, objective, samplers, scores."""
